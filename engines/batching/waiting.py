"""Decides who joins next."""

from __future__ import annotations

import bisect

from engines.batching.sequence import Sequence

PATIENCE_MS = 60_000  # a later deadline, or none, queues as this one: an endless row of short ones holds up nobody


class Waiting:
    """The sequences that wait, one queue for each priority and tenant.

    The highest priority goes first; of equals, the tenant that was given least; of its sequences, those that have run
    before, then the earliest deadline, then the first to arrive. For each `ageing_ms` that the first of a queue has
    waited it counts as one priority higher, up to the highest that waits: so nobody waits for ever, and a tenant
    that sends very much at once does not pass by the others in time.
    """

    def __init__(self, ageing_ms: int) -> None:
        assert ageing_ms > 0
        self._ageing_ms = ageing_ms
        self._queues: dict[tuple[int, str], list[Sequence]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence in its place."""
        sequence.due_ms = min(sequence.deadline_ms, sequence.arrived_ms + PATIENCE_MS)
        queue = self._queues.setdefault(_queue_of(sequence), [])
        bisect.insort(queue, sequence, key=_place)
        self._count += 1

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is."""
        queue = self._queues[_queue_of(sequence)]
        index = bisect.bisect_left(queue, _place(sequence), key=_place)
        assert queue[index] is sequence
        del queue[index]
        if not queue:
            del self._queues[_queue_of(sequence)]
        self._count -= 1

    def first(self, now_ms: int) -> Sequence | None:
        """Returns who joins next."""
        if len(self._queues) < 2:
            return next((queue[0] for queue in self._queues.values()), None)
        highest = max(priority for priority, _ in self._queues)

        def order(sequence: Sequence) -> tuple[int, int, tuple[bool, int, int]]:
            priority = min(self.aged(sequence, now_ms), highest)
            return -priority, sequence.account.token_count, _place(sequence)

        return min((queue[0] for queue in self._queues.values()), key=order)

    def aged(self, sequence: Sequence, now_ms: int) -> int:
        """Returns its priority with what its waiting has earned."""
        return sequence.work.priority + max(0, now_ms - sequence.arrived_ms) // self._ageing_ms


def _queue_of(sequence: Sequence) -> tuple[int, str]:
    return sequence.work.priority, sequence.work.tenant


def _place(sequence: Sequence) -> tuple[bool, int, int]:
    return sequence.epoch == 0, sequence.due_ms, sequence.number
