"""Tells that things changed. A reader that is behind holds one mark for each thing: the latest, and no backlog."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Changes(Generic[T]):
    """Calls every listener, at once and in the event loop's thread, with what changed."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[T], None]] = {}

    @property
    def has_listeners(self) -> bool:
        """Tells whether anybody would hear of a change."""
        return bool(self._listeners)

    def tell(self, change: T) -> None:
        """Calls every listener."""
        for each in list(self._listeners.values()):
            each(change)

    @contextlib.contextmanager
    def to(self, listener: Callable[[T], None]) -> Iterator[None]:
        """Calls `listener` at each change, for the block. It must neither wait nor raise."""
        key = object()
        self._listeners[key] = listener
        try:
            yield
        finally:
            del self._listeners[key]


class Marks(Generic[K]):
    """Things whose newest state one reader has not looked at yet. Grows with the number of things, not of changes."""

    def __init__(self) -> None:
        self._marked: dict[K, None] = {}
        self._some = asyncio.Event()

    def mark(self, key: K) -> None:
        """Notes that `key` has changed."""
        self._marked[key] = None
        self._some.set()

    def forget(self, key: K) -> bool:
        """Clears the mark of `key`; returns whether there was one."""
        if key not in self._marked:
            return False
        del self._marked[key]
        if not self._marked:
            self._some.clear()
        return True

    async def take(self, timeout_s: float | None = None) -> list[K]:
        """Waits for a mark, then returns and clears all, oldest first; returns none if `timeout_s` bring none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._some.wait()
        return self.take_now()

    def take_now(self) -> list[K]:
        """Returns and clears all marks, oldest first."""
        self._some.clear()
        taken, self._marked = list(self._marked), {}
        return taken
