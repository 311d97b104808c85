"""Cancels through a gateway over real gRPC, and what their receipts say."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import grpc
import pytest

from controlplane.auth.gate import Guard
from controlplane.model import ReplicaUid, Routes
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.kit.clock import SystemClock
from roundhouse.v1 import receipt_pb2
from tests.support.gateway_house import (
    Doorman,
    Engine,
    as_caller,
    breaks_after_the_first_token,
    house,
    never_ends,
    reason_of,
    route,
    tells_its_name,
)


async def test_a_client_that_leaves_has_its_request_cancelled_at_the_engine() -> None:
    engine = Engine("one", never_ends)
    async with house(engine) as it:
        call = it.stub.Generate(it.request("mine"))
        await call.read()
        call.cancel()
        assert await asyncio.wait_for(engine.cancels.get(), 10) == "mine"
        assert engine.causes == [receipt_pb2.CANCEL_CAUSE_DISCONNECT]


async def test_a_cancel_finds_a_request_that_this_gateway_did_not_start() -> None:
    engines = [Engine("a", tells_its_name), Engine("b", tells_its_name, has={"elsewhere"})]
    async with house(*engines) as it:
        receipt = await it.cancel("elsewhere")
        assert (receipt.outcome, receipt.replica) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, "b")
        assert set(engines[1].causes) == {receipt_pb2.CANCEL_CAUSE_CLIENT}


async def test_a_cancel_that_nobody_knows_says_not_arrived_only_if_all_were_asked() -> None:
    async with house(Engine("a", tells_its_name)) as it:
        assert (await it.cancel("ghost")).outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": (*present, route(7, "127.0.0.1:1"))}))
        receipt = await it.cancel("ghost2")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert list(receipt.unreachable) == ["deployments/chat/replicas/7"]


async def test_a_cancel_is_not_proved_while_a_placed_replica_was_not_heard_of() -> None:
    async with house(Engine("a", tells_its_name)) as it:
        silent = "deployments/chat/replicas/3"
        it.routes.set(replace(it.routes.get(), silent={"chat": {ReplicaUid("r3"): 3}}))
        receipt = await it.cancel("ghost")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert list(receipt.unreachable) == [silent]


async def test_a_cancel_is_not_proved_while_it_is_not_known_which_replicas_there_are() -> None:
    engine = Engine("a", tells_its_name, has={"mine"})
    async with house(engine) as it:
        it.routes.set(replace(it.routes.get(), is_current=False))
        receipt = await it.cancel("ghost")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert list(receipt.unreachable) == ["controlplane"]
        assert (await it.cancel("mine")).outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED


async def test_a_running_request_is_cancelled_where_it_runs_even_while_its_engine_is_not_among_the_routes() -> None:
    engine = Engine("one", never_ends)
    async with house(engine) as it, cancelling(it.stub.Generate(it.request("r"))) as call:
        await call.read()
        it.routes.set(Routes({"chat": ()}))
        receipt = await it.cancel("r")
        assert (receipt.outcome, receipt.replica) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, "one")
        assert not call.done()


async def test_nothing_is_called_lost_while_its_engine_is_there_but_silent() -> None:
    engine = Engine("half", breaks_after_the_first_token)
    async with house(engine) as it:
        with pytest.raises(grpc.RpcError):
            await it.collect("r")
        engine.is_mute = True
        receipt = await it.cancel("r", timeout=1)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert list(receipt.unreachable) == ["deployments/chat/replicas/0"]


async def test_an_id_that_was_lost_and_runs_again_is_not_called_lost() -> None:
    engine = Engine("half", breaks_after_the_first_token)
    async with house(engine) as it:
        with pytest.raises(grpc.RpcError):
            await it.collect("r")
        engine.script, engine.is_mute = never_ends, True
        async with cancelling(it.stub.Generate(it.request("r"))) as call:
            await call.read()
            it.routes.set(Routes({"chat": ()}))
            assert (await it.cancel("r", timeout=1)).outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN


async def test_a_cancel_with_little_time_hears_what_could_be_learned_in_it() -> None:
    async with house(Engine("a", never_ends, is_mute=True), Engine("b", never_ends)) as it:
        receipt = await it.cancel("r", timeout=1)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        assert list(receipt.unreachable) == ["deployments/chat/replicas/0"]


async def test_of_two_replicas_that_know_an_id_the_one_that_ran_it_just_now_gives_the_receipt() -> None:
    engines = [Engine("a", never_ends, finished={"r"}), Engine("b", never_ends, has={"r"})]
    async with house(*engines) as it:
        receipt = await it.cancel("r")
        assert (receipt.outcome, receipt.replica) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, "b")


async def test_a_receipt_that_another_gateway_left_with_an_engine_is_given_as_it_is_unless_the_request_ran() -> None:
    left = receipt_pb2.CancelReceipt(
        deployment="chat",
        request_id="r",
        outcome=receipt_pb2.CANCEL_OUTCOME_CANCELLED,
        level=receipt_pb2.CANCEL_LEVEL_STOPPED,
        cause=receipt_pb2.CANCEL_CAUSE_CLIENT,
        positions=[receipt_pb2.ChoicePosition(choice=0)],
        output_token_count=0,
        receipt_time={"seconds": 1000, "nanos": 1},
    )
    engines = [Engine("a", never_ends, kept={"r": left}), Engine("b", never_ends)]
    async with house(*engines) as it:
        assert await it.cancel("r") == left
        engines[1].finished.add("r")
        receipt = await it.cancel("r")
        assert (receipt.outcome, receipt.replica) == (receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED, "b")


async def test_a_request_cancelled_before_it_came_is_refused_by_replicas_that_came_later_too() -> None:
    async with house(Engine("a", tells_its_name)) as it:
        present = it.routes.get()
        it.routes.set(Routes({"chat": ()}))
        receipt = await it.cancel("r")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        it.routes.set(present)
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect("r")
        assert reason_of(refusal.value) == (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED")
        assert await it.cancel("r") == receipt


@pytest.mark.parametrize(
    ("replica_uid", "outcome"),
    [
        pytest.param("r0", receipt_pb2.CANCEL_OUTCOME_LOST, id="another life of the replica is there"),
        pytest.param("r9", receipt_pb2.CANCEL_OUTCOME_UNPROVEN, id="nothing is known of the replica"),
    ],
)
async def test_a_request_whose_location_names_an_engine_that_cannot_be_asked_did_arrive(
    replica_uid: str, outcome: receipt_pb2.CancelOutcome
) -> None:
    packed = hop_pb2.Location(replica_uid=replica_uid, engine_uuid="of before", attempt=1).SerializeToString()
    location = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    async with house(Engine("a", never_ends)) as it:
        assert (await it.cancel("r", location=location)).outcome == outcome


async def test_a_call_ended_by_its_deadline_is_not_taken_for_a_client_that_left() -> None:
    engine = Engine("one", never_ends)
    async with house(engine) as it:
        calls = [it.collect(f"r{number}", timeout=0.2 + number * 0.003) for number in range(60)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert engine.cancels.empty()


async def test_two_callers_may_use_the_same_id_and_none_cancels_the_request_of_the_other() -> None:
    engine = Engine("one", never_ends)
    async with house(engine, gate=Guard(Doorman(), Doorman(), SystemClock())) as it:
        request = it.request("same")
        async with (
            cancelling(it.stub.Generate(request, metadata=as_caller("secret-a"))) as first,
            cancelling(it.stub.Generate(request, metadata=as_caller("secret-b"))) as second,
        ):
            for call in (first, second):
                await call.read()
            await it.cancel("same", metadata=as_caller("secret-b"))
    assert sorted((hop.principal, hop.attempt) for hop in engine.hops) == [("ada", 1), ("bob", 1)]
    assert engine.cancelled_by[0] == "bob"
