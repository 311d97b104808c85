"""Who follows a request, and what becomes of it when the last one leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from roundhouse.kit.channel import cancelling
from roundhouse.v1 import receipt_pb2
from tests.support.clock import FakeClock
from tests.support.scripted_engine import ScriptedEngine, events_of, refusal_of, scripted_engine, text_of
from tests.support.scripted_model import PATIENCE_S

KEY = "local/mine"
SOON_S = 0.05
LEFT = {"cancel_cause": receipt_pb2.CANCEL_CAUSE_DISCONNECT}
TOMBSTONED: tuple[object, ...] = (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED", [])


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(orphan_s=SOON_S) as it:
        yield it


async def begun(engine: ScriptedEngine, **fields: Any) -> Any:
    """Starts a request named `mine`; returns its call once it has one token and a step runs."""
    engine.runner.hold()
    call = engine.generate("a", request_id="mine", **{"sampling": {"max_tokens": 8}, **fields})
    await call.read()
    engine.runner.step()
    await call.read()
    await engine.runner.entered(2)
    return call


async def ended(engine: ScriptedEngine) -> Any:
    """Lets it end, and returns its receipt."""
    engine.runner.go()
    await engine.all_ended()
    return await engine.cancel("mine")


async def test_one_of_two_clients_may_leave(engine: ScriptedEngine) -> None:
    first = await begun(engine)
    second = engine.attach("mine")
    await second.read()
    first.cancel()
    await engine.followed("mine", 1)
    engine.runner.go()
    assert await text_of(second) == "abcdefgh"
    assert (await ended(engine)).cause == receipt_pb2.CANCEL_CAUSE_UNSPECIFIED


async def test_the_last_client_that_leaves_cancels_at_once(engine: ScriptedEngine) -> None:
    first = await begun(engine)
    second = engine.attach("mine")
    await second.read()
    for call in (first, second):
        call.cancel()
    await engine.cancelled(KEY)
    receipt = await ended(engine)
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert (receipt.cause, receipt.steps_after) == (receipt_pb2.CANCEL_CAUSE_DISCONNECT, 1)


async def test_the_deadline_of_one_who_attached_is_its_own(engine: ScriptedEngine) -> None:
    first = await begun(engine)
    async with cancelling(first):
        second = engine.attach("mine", timeout=0.1)
        assert (await refusal_of(second))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        await engine.followed("mine", 1)
        engine.runner.go()
        assert await text_of(first) == "bcdefgh"


async def test_the_last_client_whose_deadline_is_over_says_so() -> None:
    async with scripted_engine() as engine:
        first = await begun(engine)
        second = engine.attach("mine", timeout=1.0)
        await second.read()
        first.cancel()
        assert (await refusal_of(second))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        await engine.cancelled(KEY)
        assert (await ended(engine)).cause == receipt_pb2.CANCEL_CAUSE_DEADLINE


async def test_an_orphan_is_taken_up_by_another_gateway() -> None:
    async with scripted_engine(orphan_s=1.0) as engine:
        first = await begun(engine, keeper="gateway-1")
        first.cancel()
        await engine.followed("mine", 0)
        second = engine.attach("mine", {0: 1}, keeper="gateway-2")
        async with cancelling(second):
            await second.read()
            loop = asyncio.get_running_loop()
            passed = loop.create_future()
            loop.call_later(1.1, passed.set_result, None)
            await passed  # the time in which it would have been cancelled
            engine.runner.go()
            assert await text_of(second) == "bcdefgh"


async def test_an_orphan_of_two_gateways_is_one_when_both_have_gone(engine: ScriptedEngine) -> None:
    calls = [await begun(engine, keeper="gateway-1"), engine.attach("mine", keeper="gateway-2")]
    await calls[1].read()
    calls[0].cancel()
    await engine.followed("mine", 1)
    calls[1].cancel()
    await engine.cancelled(KEY)
    receipt = await ended(engine)
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_ORPHANED


async def test_a_gateway_says_which_of_its_clients_has_left(engine: ScriptedEngine) -> None:
    first = await begun(engine, keeper="gateway-1", facts={"follower": "one"})
    second = engine.attach("mine", keeper="gateway-1", follower="two")
    async with cancelling(first), cancelling(second):
        await second.read()
        receipt = await engine.cancel("mine", follower="one", **LEFT)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert receipt.level == receipt_pb2.CANCEL_LEVEL_UNSPECIFIED
        assert (await engine.get("mine")).follower_count == 1
        asking = asyncio.ensure_future(engine.cancel("mine", follower="two", **LEFT))
        await engine.cancelled(KEY)
        engine.runner.go()
        receipt = await asking
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert (receipt.cause, receipt.level) == (receipt_pb2.CANCEL_CAUSE_DISCONNECT, receipt_pb2.CANCEL_LEVEL_FREED)


async def test_a_gateway_may_say_it_before_the_call_has_ended_or_come(engine: ScriptedEngine) -> None:
    call = await begun(engine, keeper="gateway-1", facts={"follower": "one"})
    async with cancelling(call):
        receipt = await engine.cancel("mine", follower="not here yet", **LEFT)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        engine.runner.go()
        assert await text_of(call) == "bcdefgh"


async def test_what_goes_on_here_waits_for_its_other_followers_when_the_first_has_left() -> None:
    async with scripted_engine(orphan_s=PATIENCE_S) as engine:
        first = await begun(engine, keeper="gateway-1", facts={"follower": "one", "attempt": 2})
        receipt = await engine.cancel("mine", follower="one", **LEFT)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        first.cancel()
        second = engine.attach("mine", {0: 1}, keeper="gateway-2", follower="two")
        await second.read()
        engine.runner.go()
        assert await text_of(second) == "bcdefgh"


async def test_what_goes_on_here_is_an_orphan_when_none_of_its_followers_comes() -> None:
    async with scripted_engine(orphan_s=2.0) as engine:
        first = await begun(engine, keeper="gateway-1", facts={"follower": "one", "attempt": 2})
        await engine.cancel("mine", follower="one", **LEFT)
        await engine.cancelled(KEY)
        assert (await ended(engine)).cause == receipt_pb2.CANCEL_CAUSE_ORPHANED
        first.cancel()


async def test_what_has_gone_on_here_for_long_ends_with_its_last_client(engine: ScriptedEngine) -> None:
    first = await begun(engine, keeper="gateway-1", facts={"follower": "one", "attempt": 2})
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(SOON_S, passed.set_result, None)
    await passed  # its youth
    asking = asyncio.ensure_future(engine.cancel("mine", follower="one", **LEFT))
    await engine.cancelled(KEY)
    engine.runner.go()
    assert (await asking).cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
    first.cancel()


async def test_a_client_that_leaves_before_its_call_comes_keeps_that_call_out_and_no_other() -> None:
    clock = FakeClock()
    async with scripted_engine(clock=clock) as engine:
        receipt = await engine.cancel("mine", follower="one", **LEFT)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        fields: dict[str, Any] = {"request_id": "mine", "keeper": "gateway-1", "sampling": {"max_tokens": 3}}
        assert await refusal_of(engine.generate("a", facts={"follower": "one"}, **fields)) == TOMBSTONED
        assert await text_of(engine.generate("a", facts={"follower": "two"}, **fields)) == "abc"
        assert await refusal_of(engine.generate("a", facts={"follower": "one"}, **fields)) == TOMBSTONED
        assert await refusal_of(engine.attach("mine", follower="one")) == TOMBSTONED
        other = {**fields, "request_id": "other"}
        assert await text_of(engine.generate("a", facts={"follower": "one"}, **other)) == "abc"
        clock.advance(60)
        again = {**fields, "request_id": "mine", "facts": {"follower": "one", "attempt": 2}}
        assert await text_of(engine.generate("a", **again)) == "abc"


async def test_what_detaches_may_come_after_its_client_has_left(engine: ScriptedEngine) -> None:
    await engine.cancel("mine", follower="one", **LEFT)
    options = {"on_disconnect": {"policy": "DISCONNECT_POLICY_DETACH"}}
    call = await begun(engine, keeper="gateway-1", facts={"follower": "one"}, options=options)
    attached = engine.attach("mine", {0: 1}, keeper="gateway-1", follower="one")
    engine.runner.go()
    assert await text_of(attached) == await text_of(call) == "bcdefgh"


async def test_a_client_of_no_name_that_leaves_keeps_nobody_out(engine: ScriptedEngine) -> None:
    await engine.cancel("mine", **LEFT)
    assert await text_of(engine.generate("a", request_id="mine", sampling={"max_tokens": 3})) == "abc"


async def test_a_cancel_by_its_client_ends_it_whoever_follows(engine: ScriptedEngine) -> None:
    first = await begun(engine, keeper="gateway-1")
    second = engine.attach("mine", keeper="gateway-2")
    await second.read()
    asking = asyncio.ensure_future(engine.cancel("mine"))
    await engine.cancelled(KEY)
    engine.runner.go()
    assert (await asking).cause == receipt_pb2.CANCEL_CAUSE_CLIENT
    for call in (first, second):
        assert (await events_of(call))[-1].HasField("usage")


async def test_what_a_gateway_began_goes_on_while_its_prompt_is_tokenized(engine: ScriptedEngine) -> None:
    async with scripted_engine() as engine:
        engine.tokenizer.hold()
        call = engine.generate("x" * 5000, request_id="mine", keeper="gateway-1", sampling={"max_tokens": 3})
        await engine.tokenizer.entered()
        call.cancel()
        await engine.followed("mine", 0)
        engine.tokenizer.go()
        assert await text_of(engine.attach("mine", keeper="gateway-2")) == "xyz"
        await engine.all_ended()


async def test_many_who_come_and_go_leave_nothing_behind(engine: ScriptedEngine) -> None:
    engine.runner.hold()
    keepers = ["", "gateway-1"]
    begun_ = [
        engine.generate("a", request_id=str(number), keeper=keepers[number % 2], sampling={"max_tokens": 30})
        for number in range(20)
    ]
    for call in begun_:
        await call.read()
    attached = [engine.attach(str(number), keeper=keepers[number // 2 % 2]) for number in range(0, 20, 2)]
    for call in attached:
        await call.read()
    for call in [*begun_[::3], *attached[::2]]:
        call.cancel()
    engine.runner.go()
    await asyncio.gather(*map(text_of, [*begun_[1::3], *begun_[2::3], *attached[1::2]]))
    await engine.all_ended()
    assert {each.follower_count for each in (await engine.list()).requests} == {0}


@pytest.mark.parametrize("keeper", ["", "gateway-1"], ids=["a client", "a gateway"])
async def test_one_who_leaves_after_the_end_changes_nothing(engine: ScriptedEngine, keeper: str) -> None:
    call = await begun(engine, keeper=keeper)
    attached = engine.attach("mine", keeper=keeper)
    await attached.read()
    engine.runner.go()
    await engine.all_ended()
    call.cancel()
    attached.cancel()
    assert (await engine.cancel("mine")).cause == receipt_pb2.CANCEL_CAUSE_UNSPECIFIED
    assert await text_of(engine.attach("mine")) == "abcdefgh"
