"""Runs a process beside this one that answers in lines, and never outlives whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

_END_S = 5.0  # for taking away what it has not finished
_MAX_LINE = 64 * 1024


class Child:
    """A process that is told something once, and says lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int:
        """How it has ended: its exit status, or the signal below 0. Known behind the block."""
        assert self._process.returncode is not None
        return self._process.returncode

    def tell(self, line: bytes) -> None:
        """Writes a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    def lines(self) -> AsyncIterator[bytes]:
        """Returns what it says, line by line, until it says no more."""
        assert self._process.stdout is not None
        return aiter(self._process.stdout)


@contextlib.asynccontextmanager
async def child(command: Sequence[str], environ: Mapping[str, str]) -> AsyncIterator[Child]:
    """Runs a command for the block, in a session of its own; what it says as errors goes nowhere.

    Its standard input closes with the block, and with this process, whatever ends it: the command then takes away what
    it has not finished, and ends. Leaving the block waits for that, and kills one that takes too long.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_MAX_LINE,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield Child(process)
    finally:
        process.stdin.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
