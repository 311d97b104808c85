"""Decides which sequences run: first come, first served, each with its blocks reserved to the end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engines.batching.batch import Batch, Row
from engines.batching.blocks import BlockPool
from engines.batching.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Freed:
    """The pool's counter around a release."""

    before: int
    after: int


class Scheduler:
    """Keeps the sequences that wait and those that run.

    A sequence joins when there is a place in the batch and blocks for all that it may ever come to, so that none that
    runs is put out again. A step takes one token of every sequence that decodes, and fills up with chunks of prompts.
    """

    def __init__(self, pool: BlockPool, *, batch_size: int, max_batched_tokens: int) -> None:
        assert batch_size > 0
        assert max_batched_tokens > 0
        self.pool = pool
        self._max_tokens = max_batched_tokens
        self._max_running = min(batch_size, max_batched_tokens)  # more could not all decode in one step
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Tells whether the next batch has rows."""
        return bool(self._running or self._waiting)

    @property
    def max_running(self) -> int:
        """The most sequences that run at a time."""
        return self._max_running

    @property
    def running_count(self) -> int:
        """Sequences that hold blocks."""
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        """Sequences that have not joined yet."""
        return len(self._waiting)

    def can_hold(self, sequence: Sequence) -> bool:
        """Tells whether a sequence may be added: the whole pool is enough for it."""
        return self.pool.blocks_for(sequence.final_count) <= self.pool.total

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the queue."""
        assert self.can_hold(sequence)
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> Freed:
        """Takes a sequence out, wherever it is, and frees its blocks."""
        if sequence.blocks:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)
        before = self.pool.free_count
        self.pool.release(sequence.blocks)
        sequence.blocks = ()
        return Freed(before, self.pool.free_count)

    def next_batch(self) -> Batch:
        """Lets sequences join, and returns what the next step computes. Empty only if there is no sequence."""
        self._admit()
        left = self._max_tokens
        decoding = [sequence for sequence in self._running if sequence.pending_count == 1]
        decoding.sort(key=lambda sequence: sequence.computed_count)  # like lengths side by side attend together
        rows = [_row(sequence, 1) for sequence in decoding]
        left -= len(rows)
        for sequence in self._running:
            if sequence.pending_count > 1 and left > 0:
                rows.append(_row(sequence, min(sequence.pending_count, left)))
                left -= len(rows[-1].ids)
        assert rows or not self.has_work
        return Batch(tuple(rows))

    def _admit(self) -> None:
        # Nobody overtakes: a small sequence behind a large one waits, or the large one might wait for ever.
        while self._waiting and len(self._running) < self._max_running:
            needed = self.pool.blocks_for(self._waiting[0].final_count)
            if needed > self.pool.free_count:
                return
            sequence = self._waiting.popleft()
            sequence.blocks = self.pool.allocate(needed)
            self._running.append(sequence)


def _row(sequence: Sequence, count: int) -> Row:
    first, end = sequence.computed_count, sequence.computed_count + count
    return Row(sequence, tuple(sequence.ids[first:end]), first, sequence.blocks, needs_logits=end == len(sequence.ids))
