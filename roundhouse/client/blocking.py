"""Runs asynchronous objects for threads that block: a loop in a thread, and twins of methods."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Inner = TypeVar("Inner")
Event = TypeVar("Event")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="roundhouse client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Returns what `work` returns. An interrupt of the waiting thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def call(self, action: Callable[[], R]) -> R:
        """Returns what `action` returns, called on the loop's thread."""

        async def acting() -> R:
            return action()

        return self.run(acting())

    def iterate(self, events: AsyncIterator[Event], leave: Callable[[], None]) -> Iterator[Event]:
        """Yields what an asynchronous iterator yields; however it ends, `leave` is called on the loop's thread."""

        async def following() -> Event:
            return await anext(events)

        try:
            while True:
                try:
                    event = self.run(following())
                except StopAsyncIteration:
                    return
                yield event
        finally:
            if not self._loop.is_closed():  # a generator may be collected long after its client was closed
                self.call(leave)

    def stop(self) -> None:
        """Ends the thread and what still runs on it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # on leaving it ends tasks and generators
            runner.get_loop().run_forever()


class Blocking(Generic[Inner]):
    """The blocking side of an asynchronous object."""

    def __init__(self, inner: Inner, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop


def blocking(
    method: Callable[Concatenate[Inner, P], Awaitable[R]],
) -> Callable[Concatenate[Blocking[Inner], P], R]:
    """Returns the blocking twin of a coroutine method."""

    @functools.wraps(method)
    def twin(self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> R:
        async def call() -> R:
            return await method(self._inner, *args, **kwargs)

        return self._loop.run(call())

    return twin
