"""One question to several engines at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

import grpc

from controlplane.gateway.whereabouts import name
from controlplane.model import Route

ANSWER_S = 5.0  # an engine that is well answers within a step; one that hangs must not hang the caller
Answer = TypeVar("Answer")


def answer_s(timeout_s: float | None) -> float:
    """Returns how long an engine has for its answer: two rounds of questions must leave time to tell what came."""
    return ANSWER_S if timeout_s is None else min(ANSWER_S, 0.45 * timeout_s)


async def ask(
    routes: Sequence[Route],
    question: Callable[[Route], Awaitable[Answer]],
    *,
    no: Collection[grpc.StatusCode] = (),
) -> tuple[list[tuple[Route, Answer]], list[str]]:
    """Returns the answers of those who gave one, and the names of those who could not be asked.

    no: statuses that are answers too, but have nothing to say.
    """
    answers = await asyncio.gather(*[question(each) for each in routes], return_exceptions=True)
    given, silent = [], []
    for route, answer in zip(routes, answers, strict=True):
        if isinstance(answer, grpc.RpcError) and answer.code() in no:
            continue
        # CancelledError: the channel was closed under the call, for an engine that is gone from the routes.
        if isinstance(answer, grpc.RpcError | asyncio.CancelledError):
            silent.append(name(route.deployment, route.index))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            given.append((route, answer))
    return given, silent
