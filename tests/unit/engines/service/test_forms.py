"""Forms that outputs have to have: what is compiled, and what is said of one that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grpc
import pytest

from engines.model import Constraint
from engines.service import forms
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.scripted_engine import events_of, refusal_of, scripted_engine, text_of
from tests.support.scripted_model import PATIENCE_S, CharacterGrammars, OneOf

SAMPLING = {"constraint": {"regex": "a+"}}


class Compiler:
    """Takes every form, keeps some, remembers what it was given, and can be held or made to fail."""

    def __init__(self, error: Exception | None = None, keeps: Collection[str] = ()) -> None:
        self._keeps = keeps
        self.seen: list[tuple[str, Sequence[str]]] = []
        self.made_count = 0
        self.end_ids: Collection[int] = ()
        self._error = error
        self.entered = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def kept(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint] | None:
        return self._made if texts[0] in self._keeps else None

    def compile(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        self.end_ids = end_ids
        self.seen.append((form, texts))
        self.entered.set()
        assert self.may_end.wait(PATIENCE_S)
        if self._error is not None:
            raise self._error
        return self._made

    def _made(self) -> Constraint:
        self.made_count += 1
        return OneOf(["abc"])


class SlowCompiler(Compiler):
    """Is held by one form alone."""

    def __init__(self, slow: str, keeps: Collection[str]) -> None:
        super().__init__(keeps=keeps)
        self._slow = slow
        self.may_end.clear()

    def compile(self, form: str, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        return super().compile(form, texts, end_ids) if texts[0] == self._slow else self._made


def constrained(regex: str) -> dict[str, Any]:
    return {"constraint": {"regex": regex}}


@pytest.mark.parametrize(
    ("asked", "form", "texts"),
    [
        ({"json_schema": '{"type": "null"}'}, "json_schema", ['{"type": "null"}']),
        ({"json_object": {}}, "json_object", ['{"type": "object"}']),
        ({"regex": "a+"}, "regex", ["a+"]),
        ({"choice": {"texts": ["a", "b"]}}, "choice", ("a", "b")),
        ({"ebnf": 'start: "x"'}, "ebnf", ['start: "x"']),
    ],
)
async def test_each_form_is_compiled_once_for_all_choices(asked: Any, form: str, texts: Sequence[str]) -> None:
    compiler = Compiler()
    made = await forms.constraints(compiler, generation_pb2.Constraint(**asked), [(), (), ()], {7})
    assert compiler.end_ids == {7}
    assert compiler.seen == [(form, texts)]
    assert len({id(each) for each in made}) == 3, "each output has its own"


async def test_a_form_that_does_not_compile_is_refused_by_name_and_briefly() -> None:
    compiler = Compiler(ValueError("no such thing\n as this: " + "x" * 10_000))
    with pytest.raises(InvalidArgument, match="no such thing as this") as refused:
        await forms.constraints(compiler, generation_pb2.Constraint(regex="("), [()], ())
    assert [each.field for each in refused.value.fields] == ["sampling.constraint.regex"]
    assert len(refused.value.message) < 1000


async def test_an_engine_without_a_grammar_library_says_so_and_serves_the_rest() -> None:
    async with scripted_engine() as engine:
        refusal = await refusal_of(engine.generate(sampling=SAMPLING))
        assert refusal == (grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED", ["sampling.constraint"])
        assert await text_of(engine.generate("a", sampling={"max_tokens": 2})) == "ab"


async def test_a_form_that_takes_long_holds_up_nobody_and_no_cancel_waits_for_it() -> None:
    compiler = Compiler()
    compiler.may_end.clear()
    async with scripted_engine(grammars=compiler) as engine:
        call = engine.generate("a", request_id="mine", sampling={**SAMPLING, "n": 2})
        slow = asyncio.ensure_future(events_of(call))
        await asyncio.to_thread(compiler.entered.wait)
        assert await text_of(engine.generate("a", sampling={"max_tokens": 3})) == "abc"
        receipt, events = await engine.cancel("mine"), await slow
        compiler.may_end.set()
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert receipt.level == receipt_pb2.CANCEL_LEVEL_FREED
        assert (receipt.output_token_count, receipt.freed_block_count, receipt.steps_after) == (0, 0, 0)
        assert [each.choice for each in receipt.positions] == [0, 1]
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["started", "finished", "finished", "usage"]
        assert {event.finished.reason for event in events[1:3]} == {generation_pb2.FINISH_REASON_CANCELLED}
        assert await engine.cancel("mine") == receipt
        await engine.all_ended()


async def test_whoever_sends_many_forms_that_take_long_holds_up_nobody_else() -> None:
    compiler = SlowCompiler("slow", keeps=["known"])
    async with scripted_engine(grammars=compiler) as engine, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            many = engine.generate("a", principal="greedy", sampling=constrained("slow"))
            await stack.enter_async_context(cancelling(many))
        await asyncio.to_thread(compiler.entered.wait)
        sampling = {"max_tokens": 3}
        for form in ("quick", "known", "quick"):
            quick = engine.generate("a", principal="other", sampling={**constrained(form), **sampling})
            assert await text_of(quick) == "abc"
        known = engine.generate("a", principal="greedy", sampling={**constrained("known"), **sampling})
        assert await text_of(known) == "abc", "what is compiled already waits for nobody"
        compiler.may_end.set()


async def test_a_form_that_is_kept_is_not_compiled_and_the_output_that_it_goes_on_behind_is_checked() -> None:
    compiler = Compiler(keeps=["a+"])
    asked = generation_pb2.Constraint(regex="a+")
    for given in (b"", b"ab"):
        made = await forms.constraints(compiler, asked, [given, ()], {7})
        assert len({id(each) for each in made}) == 2, "each output has its own"
    with pytest.raises(InvalidArgument, match="choice 1 has output"):
        await forms.constraints(compiler, asked, [(), b"b"], {7})
    assert compiler.seen == []


async def test_no_deadline_waits_for_a_form_and_no_client_that_leaves() -> None:
    compiler = Compiler()
    compiler.may_end.clear()
    async with scripted_engine(grammars=compiler) as engine:
        options = {"max_duration": {"nanos": 50_000_000}}
        refusal = await refusal_of(engine.generate("a", sampling=SAMPLING, options=options))
        assert refusal[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        compiler.entered.clear()
        call = engine.generate("a", request_id="left", sampling=SAMPLING)
        await asyncio.to_thread(compiler.entered.wait)
        call.cancel()
        await engine.all_ended()
        compiler.may_end.set()


async def test_a_refused_form_leaves_nothing_behind() -> None:
    async with scripted_engine(grammars=CharacterGrammars()) as engine:
        refusal = await refusal_of(engine.generate(request_id="mine", sampling=SAMPLING))
        assert refusal == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ["sampling.constraint.regex"])
        assert engine.requests.live == ()
        await engine.all_ended()
