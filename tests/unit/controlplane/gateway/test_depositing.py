"""The receipt of a request that ended in the line of one gateway is told by all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from controlplane.gateway.depositing import MOST_UNDER_WAY, Depositing
from controlplane.gateway.engines import Engines
from controlplane.gateway.live import RequestKey
from controlplane.gateway.service import open_gateway
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import Background
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc, receipt_pb2, request_pb2
from tests.support.gateway_house import DESCRIPTOR, Engine, House, house, never_ends, reason_of, tells_its_name
from tests.support.scripted_engine import IDENTITY, ScriptedEngine, scripted_engine

PATIENCE_S = 20.0
ROOM = 2  # of an engine that runs one at a time, with what it is to have at hand
CLIENT, DISCONNECT = receipt_pb2.CANCEL_CAUSE_CLIENT, receipt_pb2.CANCEL_CAUSE_DISCONNECT


def key(request_id: str) -> RequestKey:
    return RequestKey("local", "chat", request_id)


def receipt_of(cause: receipt_pb2.CancelCause, request_id: str = "r") -> receipt_pb2.CancelReceipt:
    return receipt_pb2.CancelReceipt(deployment="chat", request_id=request_id, cause=cause)


@dataclass(frozen=True)
class Front:
    """One gateway, as a client has it."""

    routes: Latest[Routes]
    stub: Any

    def generate(self, request_id: str, text: str = "a", max_tokens: int = 4) -> Any:
        request = inference_service_pb2.GenerateRequest(
            deployment="chat", request_id=request_id, prompt=[{"text": text}], sampling={"max_tokens": max_tokens}
        )
        return self.stub.Generate(request, timeout=PATIENCE_S)

    async def text(self, request_id: str) -> str:
        async with cancelling(self.generate(request_id)) as call:
            return "".join([event.delta.text async for message in call for event in message.events])

    async def cancel(self, request_id: str) -> Any:
        request = inference_service_pb2.CancelRequestRequest(deployment="chat", request_id=request_id)
        return (await self.stub.CancelRequest(request, timeout=PATIENCE_S)).receipt

    async def get(self, request_id: str) -> Any:
        request = inference_service_pb2.GetRequestRequest(deployment="chat", request_id=request_id)
        return (await self.stub.GetRequest(request, timeout=PATIENCE_S)).request

    async def list(self) -> Any:
        request = inference_service_pb2.ListRequestsRequest(deployment="chat")
        return list((await self.stub.ListRequests(request, timeout=PATIENCE_S)).requests)

    async def until(self, request_id: str, state: request_pb2.RequestState) -> None:
        """Waits until a request does that; each look is a call, which lets others go first."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(grpc.RpcError):
                    if (await self.get(request_id)).state == state:
                        return

    @contextlib.asynccontextmanager
    async def in_line(self, request_id: str) -> AsyncIterator[Any]:
        """Gives the call of a request that waits behind others, which stay for the block."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(ROOM):
                before = await stack.enter_async_context(cancelling(self.generate("", max_tokens=1000)))
                await before.read()
            call = await stack.enter_async_context(cancelling(self.generate(request_id)))
            await self.until(request_id, request_pb2.REQUEST_STATE_WAITING)
            yield call


@contextlib.asynccontextmanager
async def fronts(*addresses: Route) -> AsyncIterator[tuple[Front, Front]]:
    """Gives two gateways before the same engines."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in ("a", "b"):
            routes = Latest(Routes({"chat": addresses}))
            gateway = await stack.enter_async_context(open_gateway(routes, gateway_id=name))
            serving = await stack.enter_async_context(
                serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, gateway)], grace_s=0)
            )
            channel = await stack.enter_async_context(open_channel(serving.address))
            made.append(Front(routes, inference_service_pb2_grpc.InferenceServiceStub(channel)))
        yield made[0], made[1]


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[tuple[ScriptedEngine, Front, Front]]:
    """Gives two gateways before a real engine whose steps are held."""
    async with scripted_engine() as engine:
        engine.runner.hold()
        uuid, secret = IDENTITY.engine_uuid, IDENTITY.engine_key
        uid = ReplicaUid(IDENTITY.replica_uid)
        route = Route("chat", 0, uid, 1, NodeId("n"), engine.address, uuid, secret, True, 0, 0, max_running_count=1)
        async with fronts(route) as (a, b):
            yield engine, a, b
            engine.runner.go()  # or the gateways would wait to hear that those have ended which were left


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
