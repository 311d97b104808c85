"""Runs what blocks for long beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
V = TypeVar("V")


async def in_daemon_thread(work: Callable[[], T], name: str) -> T:
    """Returns what `work` returns, from a thread that does not keep the process alive, as one of an executor would."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[V], None], value: V) -> None:
        if not outcome.done():  # else whoever waited has gone
            how(value)

    def tell(how: Callable[[V], None], value: V) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has closed: the process ends
            loop.call_soon_threadsafe(settle, how, value)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            tell(outcome.set_exception, error)
        else:
            tell(outcome.set_result, value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
