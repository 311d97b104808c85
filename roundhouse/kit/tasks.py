"""Tasks that outlive the call that started them, with an owner who ends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

import structlog

Loop = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def looping(loops: Mapping[str, Loop]) -> AsyncIterator[None]:
    """Runs loops, by their names, for the block. If one fails, the block is cancelled and the failure raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each(), name=name) for name, each in loops.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


class Background:
    """Owns tasks; leaving the block gives them `grace_s` seconds to end, then cancels them. A failure is logged."""

    def __init__(self, *, grace_s: float = 0.0) -> None:
        self._grace_s = grace_s
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Runs `work` as a task of this owner."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks and self._grace_s > 0:
            await asyncio.wait(self._tasks, timeout=self._grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background task failed", task=task.get_name(), exc_info=task.exception())
