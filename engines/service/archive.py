"""Keeps what has ended for those who come back for it: each for its time, and so much of all together."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Generic, TypeVar

from roundhouse.kit.clock import Clock

T = TypeVar("T")


class Archive(Generic[T]):
    """Values with a size and a time to live. When they come to more than `limit`, the oldest go first."""

    def __init__(self, clock: Clock, *, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[str, tuple[T, int, float]] = OrderedDict()  # value, size, end of its time
        self._ends: list[tuple[float, str]] = []  # a heap; of entries that are gone as well

    def put(self, key: str, value: T, *, size: int, ttl_s: float) -> None:
        """Keeps `value`, in place of an entry of this key."""
        self.drop(key)
        end_s = self._clock.monotonic() + ttl_s
        self._entries[key] = (value, size, end_s)
        self._size += size
        heapq.heappush(self._ends, (end_s, key))
        while self._size > self._limit and self._entries:
            self.drop(next(iter(self._entries)))
        self._forget()

    def get(self, key: str) -> T | None:
        """Returns the value of `key`; None if there is none any more."""
        self._forget()
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def drop(self, key: str) -> None:
        """Forgets an entry, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= entry[1]

    @property
    def size(self) -> int:
        """Of all entries together."""
        self._forget()
        return self._size

    def _forget(self) -> None:
        now_s = self._clock.monotonic()
        while self._ends and self._ends[0][0] <= now_s:
            _, key = heapq.heappop(self._ends)
            entry = self._entries.get(key)
            if entry is not None and entry[2] <= now_s:  # else a newer entry has the key
                self.drop(key)
        if len(self._ends) > 64 + 2 * len(self._entries):  # the dead must not grow beyond the living
            self._ends = [(end_s, key) for key, (_, _, end_s) in self._entries.items()]
            heapq.heapify(self._ends)
