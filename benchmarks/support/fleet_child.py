"""A part of the fleet benchmark in a process of its own, on cores of its own: questions and answers are JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.support.paths import ROOT

Answer = Mapping[str, Any]
Answering = Callable[..., Awaitable[Answer]]
STOP_S = 10.0


class ChildFailed(Exception):
    """The process ended, or did not answer in time."""


class Child:
    """The parent's side. Ask one question at a time."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log

    async def ask(self, what: str, *, timeout_s: float, **arguments: Any) -> Answer:
        """Returns the answer; raises ChildFailed if there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"what": what, **arguments}).encode() + b"\n")
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise ChildFailed(f'no answer to "{what}" within {timeout_s:.0f} s ({self._log})') from error
        except OSError as error:
            raise ChildFailed(f"it has ended ({self._log})") from error
        if not line:
            raise ChildFailed(f"it has ended ({self._log})")
        answer: Answer = json.loads(line)
        return answer


@contextlib.asynccontextmanager
async def child(module: str, arguments: Mapping[str, Any], cores: Collection[int], log: Path) -> AsyncIterator[Child]:
    """Runs a module that calls `answer` for the block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, json.dumps(arguments)]
    with log.open("wb") as stderr, on_cores(cores):
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr, cwd=ROOT
        )
    try:
        yield Child(process, log)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await wait_or_kill(process, STOP_S)


async def answer(methods: Mapping[str, Answering]) -> None:
    """Answers the parent's questions until it closes the pipe. The child's side."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        arguments = json.loads(line)
        print(json.dumps(await methods[arguments.pop("what")](**arguments)), flush=True)


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Processes that are started in the block stay on these cores, with all their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def wait_or_kill(process: asyncio.subprocess.Process, longest_s: float) -> None:
    """Waits for a process that was told to end, and ends it if that takes too long."""
    try:
        async with asyncio.timeout(longest_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
