"""A mapping that forgets: entries live for a time, and only so many of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from roundhouse.kit.clock import Clock

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Expiring(Generic[K, T]):
    """Keeps each entry for `ttl_s` seconds after it was put, and at most the `limit` newest."""

    def __init__(self, clock: Clock, *, ttl_s: float, limit: int) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._limit = limit
        self._entries: OrderedDict[K, tuple[float, T]] = OrderedDict()  # oldest first

    def put(self, key: K, value: T) -> None:
        """Keeps `value`, as new; an entry of this key is replaced."""
        self._entries.pop(key, None)
        self._entries[key] = (self._clock.monotonic() + self._ttl_s, value)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        self._forget_old()

    def get(self, key: K) -> T | None:
        """Returns the value of `key`; None if there is none any more."""
        self._forget_old()
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def items(self) -> Iterator[tuple[K, T]]:
        """Yields keys and values, oldest first."""
        self._forget_old()
        return ((key, value) for key, (_, value) in self._entries.items())

    def forget(self, key: K) -> None:
        """Drops the entry of `key`, if there is one."""
        self._entries.pop(key, None)

    def __len__(self) -> int:
        self._forget_old()
        return len(self._entries)

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic()
        while self._entries and next(iter(self._entries.values()))[0] <= now_s:
            self._entries.popitem(last=False)
