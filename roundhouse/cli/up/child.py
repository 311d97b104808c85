"""A process of ours that is kept running: started again when it dies, ended when its block is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import Usage

T = TypeVar("T")

_RESTART = Backoff(first_s=0.2, cap_s=10.0)
_STEADY_S = 10.0  # one that lived this long did not die of how it was started
_LOOK_S = 0.05
_LOG_BYTES = 8 << 20  # kept twice: the log and the one before it

OnDeath = Callable[[str], None]


class Child:
    """A Python module run as a process, in a session of its own: the terminal's Ctrl-C reaches it only through us."""

    def __init__(self, title: str, command: Sequence[str], log: Path, on_death: OnDeath) -> None:
        self.title = title
        self.command = tuple(command)  # of the next life
        self._log = log
        self._on_death = on_death
        self._process: Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Its process id, 0 while it is between two lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def until(self, look: Callable[[], T | None], within_s: float) -> T:
        """Returns what `look` finds at last; raises Usage with the last words of the process if it ends first."""

        async def looking() -> T:
            while (found := look()) is None:  # noqa: ASYNC110 - of a file there is no event
                await asyncio.sleep(_LOOK_S)
            return found

        return await self.alongside(looking(), within_s)

    async def alongside(self, work: Coroutine[Any, Any, T], within_s: float) -> T:
        """Returns what `work` returns; raises Usage with the last words of the process if it ends first."""
        assert self._process is not None
        working, dying = asyncio.ensure_future(work), asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({working, dying}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if dying.done():
                raise Usage(self._last_words(dying.result()))
            raise Usage(f"the {self.title} is not ready after {within_s:g} s: its log is {self._log}")
        finally:
            working.cancel()
            dying.cancel()

    async def spawn(self) -> None:
        """Starts a life of it."""
        self._rotate()
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self.command, stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def keep(self) -> NoReturn:
        """Starts it again whenever it ends, with backoff."""
        failures = 0
        while True:
            assert self._process is not None
            start_s = time.monotonic()
            code = await self._process.wait()
            failures = 0 if time.monotonic() - start_s > _STEADY_S else failures
            self._on_death(f"the {self.title} {_describe(code)}; it is started again")
            await asyncio.sleep(_RESTART.delay_s(failures))
            failures += 1
            await self.spawn()

    def warn(self, text: str) -> None:
        """Tells whoever is told of deaths."""
        self._on_death(text)

    async def end(self, grace_s: float) -> int:
        """Asks it to end, and ends it after `grace_s` seconds; returns its exit status, below 0 for a signal."""
        process = self._process
        assert process is not None
        if process.returncode is not None:
            return process.returncode
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                return await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return await process.wait()

    def _last_words(self, code: int) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        if code == 2:  # refused to start: its one line says all
            return words.partition(": ")[2] or words
        return f"the {self.title} {_describe(code)}: {words}: its log is {self._log}"

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_BYTES:
                self._log.replace(self._log.with_suffix(".log.1"))


@contextlib.asynccontextmanager
async def kept(
    child: Child, grace_s: float, *, is_up: Callable[[int], bool] | None = None
) -> AsyncIterator[Callable[[], None]]:
    """Runs a child for the block. Call what is yielded once it is up: from then on it is started again when it dies.

    With `is_up`, which tells of a process id whether that life can be ended in order, a child that was dead at the end,
    or did not end in order, is started and ended once more: it may have left behind what only it can end.
    """
    await child.spawn()
    tasks: list[asyncio.Task[NoReturn]] = []
    try:
        yield lambda: tasks.append(asyncio.create_task(child.keep(), name=f"keep {child.title}"))
    finally:
        await _undisturbed(_end(child, tasks, grace_s, is_up))


async def _end(
    child: Child, tasks: Sequence[asyncio.Task[NoReturn]], grace_s: float, is_up: Callable[[int], bool] | None
) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    status = await child.end(grace_s)
    if tasks and is_up is not None and status != 0:
        with contextlib.suppress(Usage):
            await child.spawn()
            await child.until(lambda: is_up(child.pid) or None, grace_s)
        if await child.end(grace_s) != 0:
            child.warn(f"the {child.title} did not end in order, nor another time: what it has started may go on")


async def _undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Waits until `work` is done, and only then lets a cancellation out: what it would leave, nobody else ends."""
    task = asyncio.create_task(work)
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            is_cancelled = True
    task.result()
    if is_cancelled:
        raise asyncio.CancelledError


def _describe(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
