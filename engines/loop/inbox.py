"""Where other threads leave what the step thread is to take in: new requests, cancels, and ends that they found."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from engines.loop.endings import Cancel, Ending
from engines.loop.live import Live


class QueueFull(Exception):
    """No more sequences may wait, or not so many more."""

    def __init__(self, waiting_count: int, most: int) -> None:
        super().__init__(f"{waiting_count} sequences are waiting, of {most} that may: try again later")
        self.waiting_count = waiting_count


class Stopped(Exception):
    """The step loop takes no more requests."""

    def __init__(self) -> None:
        super().__init__("the step loop has stopped")


@dataclass(frozen=True, slots=True)
class Leaving:
    """What ends, of all that was taken in before."""

    cancels: dict[str, Cancel] = field(default_factory=dict)
    found: list[tuple[Live, Ending]] = field(default_factory=list)


NOBODY = Leaving()


class Inbox:
    """Holds what came, until the step thread takes it. Knows which keys live; nothing in it waits for a step."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._arrivals: list[list[Live]] = []  # each the choices of one request
        self._arrived_count = 0  # choices in them
        self._cancels: dict[str, Cancel] = {}
        self._found: list[tuple[Live, Ending]] = []
        self._opened: list[Live] = []
        self._keys: set[str] = set()
        self._queued_count = 0  # sequences taken by the step thread, but not in the batch yet
        self._is_woken = False
        self._is_closed = False

    @property
    def waiting_count(self) -> int:
        """Sequences that have not joined the batch."""
        with self._changed:
            return self._arrived_count + self._queued_count

    @property
    def is_closed(self) -> bool:
        """Tells whether no more requests are taken."""
        return self._is_closed

    # From any thread.

    def put(self, lives: list[Live]) -> None:
        """Leaves a request: its choices. Raises QueueFull, Stopped."""
        key = lives[0].key
        with self._changed:
            if self._is_closed:
                raise Stopped
            waiting_count = self._arrived_count + self._queued_count
            # With more choices than may ever wait it is taken when nobody waits: else it would be refused for ever.
            if waiting_count and waiting_count + len(lives) > self._max_waiting:
                raise QueueFull(waiting_count, self._max_waiting)
            assert key not in self._keys, f'key "{key}" is in use'
            self._keys.add(key)
            self._arrivals.append(lives)
            self._arrived_count += len(lives)
            self._changed.notify_all()

    def cancel(self, key: str, cancel: Cancel) -> None:
        """Leaves a cancel. The first one for a key counts; one for an unknown key is nothing."""
        with self._changed:
            if key in self._keys:
                self._cancels.setdefault(key, cancel)
                self._changed.notify_all()

    def found(self, live: Live, ending: Ending) -> None:
        """Leaves word that an output has ended, in its text."""
        with self._changed:
            self._found.append((live, ending))
            self._changed.notify_all()

    def opened(self, live: Live) -> None:
        """Leaves word that the text of the output that a sequence was given has been read."""
        with self._changed:
            self._opened.append(live)
            self._changed.notify_all()

    def wake(self) -> None:
        """Leaves word that something that a step waits for is there."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Takes no more requests, and wakes the step thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    # From the step thread.

    def wait(self, *, timeout_s: float | None = None, gather_s: float = 0.0, enough: int = 1) -> None:
        """Waits for something to do, at most so long.

        Once a request has come, gathers more for `gather_s`, or until there are enough sequences.
        """
        with self._changed:
            self._changed.wait_for(self._has_something, timeout=timeout_s)
            self._is_woken = False
            if gather_s > 0 and self._arrivals:
                self._changed.wait_for(
                    lambda: self._arrived_count >= enough or self._cancels or self._is_closed, timeout=gather_s
                )

    def take(self) -> tuple[list[list[Live]], list[Live]]:
        """Returns the requests that came since the last time, and the sequences whose given output has been read."""
        with self._changed:
            arrivals, self._arrivals = self._arrivals, []
            opened, self._opened = self._opened, []
            self._queued_count += self._arrived_count
            self._arrived_count = 0
            return arrivals, opened

    def take_leaving(self) -> Leaving:
        """Returns what ends, of all that was taken before; a cancel never without the request before it."""
        if not self._cancels and not self._found:  # as nearly always; what comes just now is seen the next time
            return NOBODY
        with self._changed:
            not_taken = {lives[0].key for lives in self._arrivals}
            cancels = {key: cancel for key, cancel in self._cancels.items() if key not in not_taken}
            for key in cancels:
                del self._cancels[key]
            found, self._found = self._found, []
            return Leaving(cancels, found)

    def settle(self, queued_count: int) -> None:
        """Says how many of the sequences taken still wait to join the batch."""
        self._queued_count = queued_count

    def forget(self, key: str) -> None:
        """Ends a key's life, so that it may be used again. A cancel that was not taken by now came too late."""
        with self._changed:
            self._keys.discard(key)
            self._cancels.pop(key, None)

    def _has_something(self) -> bool:
        return bool(self._arrivals or self._cancels or self._found or self._opened or self._is_woken or self._is_closed)
