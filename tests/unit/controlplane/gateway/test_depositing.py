"""The receipt of a request that ended in the line of one gateway is told by all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from controlplane.gateway.depositing import MOST_UNDER_WAY, Depositing
from controlplane.gateway.engines import Engines
from controlplane.gateway.live import RequestKey
from controlplane.model import ReplicaUid, Routes
from roundhouse.kit.tasks import Background
from roundhouse.v1 import receipt_pb2, request_pb2
from tests.support.gateway_fronts import PATIENCE_S, Front, cluster, fronts
from tests.support.gateway_house import Engine, House, house, never_ends, reason_of, tells_its_name

CLIENT, DISCONNECT = receipt_pb2.CANCEL_CAUSE_CLIENT, receipt_pb2.CANCEL_CAUSE_DISCONNECT


def key(request_id: str) -> RequestKey:
    return RequestKey("local", "chat", request_id)


def receipt_of(cause: receipt_pb2.CancelCause, request_id: str = "r") -> receipt_pb2.CancelReceipt:
    return receipt_pb2.CancelReceipt(deployment="chat", request_id=request_id, cause=cause)


def has_silent(front: Front) -> None:
    """Adds a replica that does not answer to what a gateway knows."""
    (present,) = front.routes.get().replicas["chat"]
    silent = replace(present, index=1, replica_uid=ReplicaUid("silent"), engine_uuid="silent", address="127.0.0.1:1")
    front.routes.set(Routes({"chat": (present, silent)}))


async def test_after_a_cancel_in_the_line_of_one_gateway_every_gateway_gives_that_receipt() -> None:
    async with cluster() as (_, a, b), a.in_line("mine"):
        receipt = await a.cancel("mine")
        assert (receipt.outcome, receipt.cause) == (receipt_pb2.CANCEL_OUTCOME_CANCELLED, CLIENT)
        assert (receipt.level, receipt.attempt) == (receipt_pb2.CANCEL_LEVEL_STOPPED, 0)
        assert await b.cancel("mine") == receipt
        assert await a.cancel("mine") == receipt
        told = await b.get("mine")
        assert (told.state, told.receipt) == (request_pb2.REQUEST_STATE_ENDED, receipt)
        assert await a.get("mine") == told
        for each in (a, b):
            assert told in await each.list()
            with pytest.raises(grpc.RpcError) as refusal:
                await each.text("mine")
            assert reason_of(refusal.value) == (grpc.StatusCode.ABORTED, "REQUEST_TOMBSTONED")


async def test_one_whose_client_left_the_line_is_known_to_every_gateway_and_may_come_again_through_any() -> None:
    async with cluster() as (engine, a, b):
        async with a.in_line("mine") as call:
            call.cancel()
            await b.until("mine", request_pb2.REQUEST_STATE_ENDED)
            told = await b.get("mine")
            assert told.receipt.cause == DISCONNECT
            assert await a.get("mine") == told
        engine.runner.go()
        assert await b.text("mine") == "abcd"
        for each in (a, b):
            ran = await each.get("mine")
            assert (ran.attempt, ran.receipt.output_token_count) == (1, 4)
            assert await each.cancel("mine") == ran.receipt


async def test_while_an_engine_is_silent_a_cancel_counts_but_not_that_one_left_which_may_have_come_again() -> None:
    async with cluster() as (_, a, b):
        async with a.in_line("cancelled"):
            receipt = await a.cancel("cancelled")
        async with a.in_line("left") as call:
            call.cancel()
            await b.until("left", request_pb2.REQUEST_STATE_ENDED)
        has_silent(b)
        assert await b.cancel("cancelled") == (await b.get("cancelled")).receipt == receipt
        assert (await b.cancel("left")).outcome == receipt_pb2.CANCEL_OUTCOME_UNPROVEN
        with pytest.raises(grpc.RpcError) as refusal:
            await b.get("left")
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_one_that_waits_at_another_gateway_is_not_said_to_have_ended_where_it_waits() -> None:
    async with cluster() as (_, a, b):
        async with a.in_line("mine") as call:
            call.cancel()
            await b.until("mine", request_pb2.REQUEST_STATE_ENDED)
        async with b.in_line("mine"):
            assert (await b.get("mine")).state == request_pb2.REQUEST_STATE_WAITING
            receipt = await b.cancel("mine")
            assert receipt.cause == CLIENT
            assert await a.cancel("mine") == (await a.get("mine")).receipt == receipt


@contextlib.asynccontextmanager
async def depositing(it: House) -> AsyncIterator[Depositing]:
    """Gives one that tries the engines of a house in their order."""
    engines = Engines("g")
    try:
        async with Background() as background:
            yield Depositing(it.routes.get, engines, background, lambda: 0.0)
    finally:
        await engines.keep_only(frozenset())


async def test_an_engine_that_does_not_answer_is_replaced_by_one_more() -> None:
    engines = [Engine("a", never_ends, is_mute=True), Engine("b", never_ends), Engine("c", never_ends)]
    async with house(*engines) as it, depositing(it) as them:
        receipt = receipt_of(CLIENT)
        them.start(key("r"), receipt)
        await them.wait(key("r"), PATIENCE_S)
        assert [each.deposits.qsize() for each in engines] == [1, 1, 0]
        assert engines[1].deposits.get_nowait() == receipt


async def test_a_cancel_in_the_line_is_answered_though_no_engine_takes_its_receipt() -> None:
    engine = Engine("a", never_ends, is_mute=True)
    async with house(engine) as it:
        address = replace(it.routes.get().replicas["chat"][0], max_running_count=1)
        async with fronts(address) as (a, _), a.in_line("mine"):
            receipt = await a.cancel("mine")
            assert receipt.cause == CLIENT
            assert engine.deposits.get_nowait() == receipt  # it was told before the answer


async def test_what_no_ready_engine_is_there_for_is_waited_for_no_longer() -> None:
    engine = Engine("a", tells_its_name)
    async with house(engine, ready=False) as it, depositing(it) as them:
        them.start(key("r"), receipt_of(CLIENT))
        await them.wait(key("r"), PATIENCE_S)
        assert engine.deposits.empty()


async def test_at_most_so_many_are_under_way() -> None:
    engine = Engine("a", tells_its_name, is_mute=True)
    async with house(engine) as it, depositing(it) as them:
        ids = [str(number) for number in range(MOST_UNDER_WAY + 5)]
        for each in ids:
            them.start(key(each), receipt_of(CLIENT, each))
        await asyncio.gather(*(them.wait(key(each), PATIENCE_S) for each in ids))
        assert engine.deposits.qsize() == MOST_UNDER_WAY
        engine.is_mute = False
        them.start(key("later"), receipt_of(CLIENT, "later"))
        await them.wait(key("later"), PATIENCE_S)
        assert engine.deposits.qsize() == MOST_UNDER_WAY + 1


async def test_of_a_gateway_that_ends_nobody_is_told_that_clients_have_left() -> None:
    engine = Engine("a", tells_its_name)
    async with house(engine) as it, depositing(it) as them:
        them.end()
        them.start(key("left"), receipt_of(DISCONNECT, "left"))
        them.start(key("cancelled"), receipt_of(CLIENT, "cancelled"))
        for each in ("left", "cancelled"):
            await them.wait(key(each), PATIENCE_S)
        assert engine.deposits.get_nowait().request_id == "cancelled"
        assert engine.deposits.empty()
