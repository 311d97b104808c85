"""Where other threads leave what the step thread is to take in: new requests, and cancels."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from engines.batching.sequence import Sequence
from engines.model import Cause, Sink


class QueueFull(Exception):
    """As many requests wait as may."""

    def __init__(self, waiting_count: int) -> None:
        super().__init__(f"{waiting_count} requests are waiting, which is the most: try again later")
        self.waiting_count = waiting_count


class Stopped(Exception):
    """The step loop takes no more requests."""

    def __init__(self) -> None:
        super().__init__("the step loop has stopped")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it came."""

    sequence: Sequence
    sink: Sink
    time_s: float

    @property
    def key(self) -> str:
        """Its key."""
        return self.sequence.work.key


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel as it came."""

    cause: Cause
    time_s: float


class Inbox:
    """Holds what came, until the step thread takes it. Knows which keys live; nothing in it waits for a step."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._arrivals: list[Arrival] = []
        self._cancels: dict[str, Cancel] = {}
        self._keys: set[str] = set()
        self._queued_count = 0  # taken by the step thread, but not in the batch yet
        self._is_closed = False

    @property
    def waiting_count(self) -> int:
        """Requests that have not joined the batch."""
        with self._changed:
            return len(self._arrivals) + self._queued_count

    @property
    def is_closed(self) -> bool:
        """Tells whether no more requests are taken."""
        return self._is_closed

    def put(self, arrival: Arrival) -> None:
        """Leaves a request. Raises QueueFull, Stopped."""
        with self._changed:
            if self._is_closed:
                raise Stopped
            waiting_count = len(self._arrivals) + self._queued_count
            if waiting_count >= self._max_waiting:
                raise QueueFull(waiting_count)
            assert arrival.key not in self._keys, f'key "{arrival.key}" is in use'
            self._keys.add(arrival.key)
            self._arrivals.append(arrival)
            self._changed.notify_all()

    def cancel(self, key: str, cancel: Cancel) -> None:
        """Leaves a cancel. The first one for a key counts; one for an unknown key is nothing."""
        with self._changed:
            if key in self._keys:
                self._cancels.setdefault(key, cancel)
                self._changed.notify_all()

    def close(self) -> None:
        """Takes no more requests, and wakes the step thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait(self, *, gather_s: float, enough: int) -> None:
        """Waits for something to do. Once a request has come, gathers for so long, or until there are enough."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrivals or self._cancels or self._is_closed)
            if gather_s > 0:
                self._changed.wait_for(
                    lambda: len(self._arrivals) >= enough or self._cancels or self._is_closed, timeout=gather_s
                )

    def take(self) -> tuple[list[Arrival], dict[str, Cancel]]:
        """Returns all that came since the last time; a cancel never without the request before it."""
        with self._changed:
            arrivals, self._arrivals = self._arrivals, []
            cancels, self._cancels = self._cancels, {}
            self._queued_count += len(arrivals)
            return arrivals, cancels

    def take_cancels(self) -> dict[str, Cancel]:
        """Returns the cancels that came since the last time, of requests that were taken before."""
        with self._changed:
            not_taken = {arrival.key for arrival in self._arrivals}
            cancels = {key: cancel for key, cancel in self._cancels.items() if key not in not_taken}
            for key in cancels:
                del self._cancels[key]
            return cancels

    def settle(self, queued_count: int) -> None:
        """Says how many of the requests taken still wait to join the batch."""
        with self._changed:
            self._queued_count = queued_count

    def forget(self, key: str) -> None:
        """Ends a key's life, so that it may be used again. A cancel that was not taken by now came too late."""
        with self._changed:
            self._keys.discard(key)
            self._cancels.pop(key, None)
