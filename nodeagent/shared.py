"""Does work once for all who want the same, and ends it when nobody does any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, ParamSpec, TypeVar

K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")


class Shared(Generic[K, P]):
    """What is being done at present, by key. Progress is told to all who wait, to a late one at once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._going: dict[K, _Work[P]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._going

    async def do(
        self, key: K, work: Callable[[Callable[P, None]], Coroutine[Any, Any, None]], tell: Callable[P, None]
    ) -> None:
        """Returns once the work is done, which is begun unless it is going on; raises what it raises.

        `work` is given what to tell progress with. Cancelling the last of those who wait ends it.
        """
        while (going := self._going.get(key)) is not None and going.is_ending:
            await going.ended.wait()  # what it leaves is not to be mixed up with what is begun anew
        if going is None or going.is_done:  # those who waited have not all been told yet
            going = self._going[key] = _Work(work, self._name)
        try:
            await going.wait(tell)
        finally:
            if not going.is_wanted:
                await going.end()
                if self._going.get(key) is going:
                    del self._going[key]


class _Work(Generic[P]):
    def __init__(self, work: Callable[[Callable[P, None]], Coroutine[Any, Any, None]], name: str) -> None:
        self._tells: list[Callable[P, None]] = []
        self._repeat: Callable[[Callable[P, None]], None] | None = None  # tells the newest progress
        self._task: asyncio.Task[None] = asyncio.create_task(work(self._say), name=name)
        self.is_ending = False
        self.ended = asyncio.Event()

    @property
    def is_wanted(self) -> bool:
        return bool(self._tells)

    @property
    def is_done(self) -> bool:
        return self._task.done()

    async def wait(self, tell: Callable[P, None]) -> None:
        self._tells.append(tell)
        try:
            if self._repeat is not None:
                self._repeat(tell)
            await asyncio.shield(self._task)
        finally:
            self._tells.remove(tell)

    async def end(self) -> None:
        self.is_ending = True
        try:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            self.ended.set()

    def _say(self, *args: P.args, **kwargs: P.kwargs) -> None:
        self._repeat = lambda tell: tell(*args, **kwargs)
        for tell in self._tells:
            tell(*args, **kwargs)
