"""Wherever a request is when its time is over, it ends once, says why, and holds nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import grpc
import pytest

from engines.model import Constraint
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import receipt_pb2
from tests.support.scripted_engine import ScriptedEngine, refusal_of, scripted_engine
from tests.support.scripted_model import PATIENCE_S, VOCABULARY_SIZE

KEY = "local/mine"
LIMITS: dict[str, dict[str, Any]] = {
    "by the call": {"timeout": 0.3},
    "by its wish": {"options": {"max_duration": {"nanos": 100_000_000}}},
    "by both": {"timeout": 0.3, "options": {"max_duration": {"nanos": 299_000_000}}},
}


class SilentGrammars:
    """Knows one form, which says nothing until the test is over."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.asked = threading.Event()

    def kept(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        return lambda: self

    def compile(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        raise NotImplementedError

    def mask(self) -> bytes:
        self.asked.set()
        assert self.is_over.wait(PATIENCE_S)
        return b"\xff" * (VOCABULARY_SIZE // 8)

    def accept(self, token: int) -> None:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def in_the_queue(limits: dict[str, Any]) -> AsyncIterator[tuple[ScriptedEngine, Any]]:
    async with scripted_engine(batch_size=1) as engine:
        engine.runner.hold()
        first = engine.generate(sampling={"max_tokens": 3})
        async with cancelling(first):
            await engine.runner.entered(1)
            yield engine, engine.generate(request_id="mine", **limits)


@contextlib.asynccontextmanager
async def in_prefill(limits: dict[str, Any]) -> AsyncIterator[tuple[ScriptedEngine, Any]]:
    async with scripted_engine() as engine:
        engine.runner.hold()
        yield engine, engine.generate(request_id="mine", **limits)


@contextlib.asynccontextmanager
async def in_decode(limits: dict[str, Any]) -> AsyncIterator[tuple[ScriptedEngine, Any]]:
    async with scripted_engine() as engine:
        engine.runner.hold()
        engine.runner.step(2)
        yield engine, engine.generate(request_id="mine", **limits)


@contextlib.asynccontextmanager
async def behind_a_grammar(limits: dict[str, Any]) -> AsyncIterator[tuple[ScriptedEngine, Any]]:
    grammars = SilentGrammars()
    async with scripted_engine(grammars=grammars) as engine:
        yield engine, engine.generate(request_id="mine", sampling={"constraint": {"regex": "a+"}}, **limits)
        assert grammars.asked.is_set()
        grammars.is_over.set()


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("place", [in_the_queue, in_prefill, in_decode, behind_a_grammar])
async def test_a_request_whose_time_is_over_ends_wherever_it_is(place: Any, limits: dict[str, Any]) -> None:
    async with place(limits) as (engine, call):
        await engine.cancelled(KEY)
        engine.runner.go()
        assert (await refusal_of(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        await engine.all_ended()
        receipt = await engine.cancel("mine")
        assert (receipt.outcome, receipt.cause) == (
            receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED,
            receipt_pb2.CANCEL_CAUSE_DEADLINE,
        )
        assert engine.steps.progress().waiting_count == 0
