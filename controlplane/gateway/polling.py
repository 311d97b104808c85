"""One question to several engines at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

import grpc

from controlplane.gateway.whereabouts import name
from controlplane.model import Route
from roundhouse.kit.tasks import Background

ANSWER_S = 5.0  # an engine that is well answers within a step; one that hangs must not hang the caller
# Once there is an answer that is enough, for those who are well to give a better one: an id may be at two engines.
MORE_S = 0.25
Answer = TypeVar("Answer")


def answer_s(timeout_s: float | None) -> float:
    """Returns how long an engine has for its answer: two rounds of questions must leave time to tell what came."""
    return ANSWER_S if timeout_s is None else min(ANSWER_S, 0.45 * timeout_s)


async def ask(
    routes: Sequence[Route],
    question: Callable[[Route], Coroutine[Any, Any, Answer]],
    *,
    no: Collection[grpc.StatusCode] = (),
    enough: Callable[[Answer], bool] = lambda _: False,
    finishing: Background | None = None,
) -> tuple[list[tuple[Route, Answer]], list[str]]:
    """Returns the answers of those who gave one, and the names of those who could not be asked.

    no: statuses that are answers too, but have nothing to say. enough: tells of an answer whether it will do without
    those of engines that hang. finishing: sees their calls to an end; they are cancelled if it is None.
    """
    asked = [asyncio.create_task(question(each), name=f"ask {name(each.deployment, each.index)}") for each in routes]
    waiting: set[asyncio.Task[Answer]] = set(asked)
    try:
        waiting = await _answered(asked, enough)
        if waiting and finishing is not None:
            finishing.start(_ended(waiting), name="calls to engines that hang")
            waiting = set()
    finally:
        for each in waiting:
            each.cancel()
        await _ended(waiting)
    given, silent = [], []
    for route, task in zip(routes, asked, strict=True):
        error = _error_of(task)
        if isinstance(error, grpc.RpcError) and error.code() in no:
            continue
        # CancelledError: the channel was closed under the call, for an engine that is gone from the routes.
        if isinstance(error, grpc.RpcError | asyncio.CancelledError | TimeoutError):
            silent.append(name(route.deployment, route.index))
        elif error is not None:
            raise error
        else:
            given.append((route, task.result()))
    return given, silent


async def _answered(
    asked: Collection[asyncio.Task[Answer]], enough: Callable[[Answer], bool]
) -> set[asyncio.Task[Answer]]:
    """Waits until all have answered, or enough have; returns the others."""
    waiting = set(asked)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting and any(_error_of(each) is None and enough(each.result()) for each in done):
            return (await asyncio.wait(waiting, timeout=MORE_S))[1]
    return waiting


def _error_of(task: asyncio.Task[Answer]) -> BaseException | None:
    if not task.done():
        return TimeoutError()
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def _ended(tasks: Collection[asyncio.Task[Answer]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
