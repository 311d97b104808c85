"""A value of which only the latest counts, and readers that wait for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds one value. A reader that is behind skips what it missed; nothing queues up."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 0
        self._changed = asyncio.Event()

    def get(self) -> T:
        """Returns the value."""
        return self._value

    def newer(self) -> asyncio.Event:
        """Returns what is set as soon as a newer value is."""
        return self._changed

    def set(self, value: T) -> None:
        """Replaces the value and wakes every reader. From the event loop's thread only."""
        self._value = value
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self) -> AsyncIterator[T]:
        """Yields the value as it is, then each newer one that the reader is in time for."""
        while True:
            version, changed = self._version, self._changed
            yield self._value
            if version == self._version:
                await changed.wait()


async def first_of(events: Iterable[asyncio.Event], *, most_s: float) -> None:
    """Waits until one of the events is set, and `most_s` seconds at the most."""
    waiting = [asyncio.create_task(each.wait(), name="first of some events") for each in events]
    try:
        await asyncio.wait(waiting, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
