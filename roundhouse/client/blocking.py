"""Runs asynchronous objects for threads that block: a loop in a thread, and twins of methods."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from roundhouse.client.connection import NotOpen

P = ParamSpec("P")
R = TypeVar("R")
Inner = TypeVar("Inner")
Event = TypeVar("Event")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_stopped = False
        # Held while work is handed over, so that none comes after the end: it would be waited for without end.
        # Reentrant, since memory may be collected there, and a generator that goes away hands over its leaving.
        self._gate = threading.RLock()
        self._thread = threading.Thread(target=self._serve, name="roundhouse client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Returns what `work` returns. An interrupt of the waiting thread cancels it.

        Raises NotOpen after `stop`, and RuntimeError on the loop's own thread, which would wait for itself.
        """
        future = self._hand_over(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def call(self, action: Callable[[], None]) -> None:
        """Calls `action` on the loop's thread; from any thread, that one included. After `stop` it does nothing."""

        async def acting() -> None:
            action()

        if self._is_own_thread():
            action()
            return
        with contextlib.suppress(NotOpen, CancelledError):  # what could be ended has ended with the loop
            self.run(acting())

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
            self.call(leave)  # a generator may be collected on any thread, and long after its client was closed

    def stop(self) -> None:
        """Ends the thread and what still runs on it; once more, it does nothing."""
        with self._gate:
            if not self._is_stopped:
                self._is_stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _hand_over(self, work: Coroutine[Any, Any, R]) -> Future[R]:
        with self._gate:
            if not (self._is_stopped or self._is_own_thread()):
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        if self._is_stopped:
            raise NotOpen
        raise RuntimeError(
            "a callback runs on the client's own thread and cannot wait for the client: "
            "keep what it was told, and make the call when the method that called back has returned"
        )

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

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
