"""The outermost frame of a process: signals become an event, errors of use become one line and exit status 2."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from roundhouse.kit.errors import RoundhouseError

Main = Callable[[asyncio.Event], Awaitable[int | None]]


def run(main: Main, name: str) -> int:
    """Runs `main` with an event that SIGTERM or SIGINT sets; returns the exit status (0 if `main` gives none)."""
    try:
        return asyncio.run(_run(main)) or 0
    except RoundhouseError as error:
        refused: list[RoundhouseError] = [error]
    except BaseExceptionGroup as group:
        expected, rest = group.split(RoundhouseError)
        if rest is not None or expected is None:
            raise
        refused = _leaves(expected)
    for each in refused:
        sys.stderr.write(f"{name}: {each}\n")
    return 2


async def _run(main: Main) -> int | None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    return await main(stop)


def _leaves(group: BaseExceptionGroup[RoundhouseError]) -> list[RoundhouseError]:
    leaves: list[RoundhouseError] = []
    for each in group.exceptions:
        leaves.extend(_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    return leaves
