"""The gateway over real gRPC, in front of engines that do as a script says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest

from controlplane.auth.caller import Caller
from controlplane.auth.gate import Guard
from controlplane.auth.methods import Role
from controlplane.gateway.routing.breaker import FIRST_OPEN_S, LEAST_COUNT
from controlplane.gateway.routing.budget import FLOOR_PER_S, MOST, RETRY_FRACTION
from controlplane.gateway.service import open_gateway
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from controlplane.routing_policies import RoutingPolicy
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import AlreadyExists, NoCapacity, Unreachable
from roundhouse.kit.latest import Latest
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc, receipt_pb2

DESCRIPTOR = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
ROUNDING_S = 0.1  # a time of 10 to 100 s travels in tenths of a second, rounded up: 20.001 s arrives as 20.1 s
MUCH = 300  # messages of 1,000 characters, more than a client's window holds
Script = Callable[["Engine", Any, Any], Awaitable[None]]


def text(piece: str) -> inference_service_pb2.GenerateResponse:
    event = generation_pb2.GenerationEvent(delta=generation_pb2.Delta(text=piece))
    return inference_service_pb2.GenerateResponse(events=[event])


async def tells_its_name(engine: Engine, request: Any, context: Any) -> None:
    await context.write(text(engine.name))


async def never_ends(engine: Engine, request: Any, context: Any) -> None:
    await context.write(text(engine.name))
    await asyncio.Event().wait()


async def never_ends_but_knows_ids(engine: Engine, request: Any, context: Any) -> None:
    if len(engine.hops) > 1:
        raise AlreadyExists("it exists: choose another id", reason=errors_pb2.ERROR_REASON_REQUEST_EXISTS)
    await never_ends(engine, request, context)


async def breaks_after_the_first_token(engine: Engine, request: Any, context: Any) -> None:
    await context.write(text(engine.name))
    raise Unreachable("going down: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def refuses_everybody(engine: Engine, request: Any, context: Any) -> None:
    raise Unreachable("draining: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def breaks(engine: Engine, request: Any, context: Any) -> None:
    raise RuntimeError("out of order")


async def is_full(engine: Engine, request: Any, context: Any) -> None:
    raise NoCapacity("the queue is full: wait", reason=errors_pb2.ERROR_REASON_QUEUE_FULL, retry_after_s=2)


@dataclass
class Engine:
    """An engine that does as its script says, and remembers what reached it."""

    name: str
    script: Script
    hops: list[hop_pb2.Hop] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)
    remaining_s: list[float | None] = field(default_factory=list)
    cancels: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    causes: list[int] = field(default_factory=list)
    cancelled_by: list[str] = field(default_factory=list)
    has: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    is_mute: bool = False  # it answers no cancel

    async def Generate(self, request: Any, context: Any) -> None:
        packed = metadata_value(context.invocation_metadata(), HOP_KEY)
        assert isinstance(packed, bytes)
        self.hops.append(hop_pb2.Hop.FromString(packed))
        self.metadata.append(context.invocation_metadata())
        self.remaining_s.append(context.time_remaining())
        self.has.add(request.request_id)
        await context.send_initial_metadata([("roundhouse-location", f"at-{self.name}"), ("secret", "x")])
        await self.script(self, request, context)

    async def CancelRequest(self, request: Any, context: Any) -> Any:
        packed = metadata_value(context.invocation_metadata(), HOP_KEY)
        assert isinstance(packed, bytes)
        hop = hop_pb2.Hop.FromString(packed)
        self.causes.append(hop.cancel_cause)
        self.cancelled_by.append(hop.principal)
        self.cancels.put_nowait(request.request_id)
        if self.is_mute:
            await asyncio.Event().wait()
        outcome = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        if request.request_id in self.has:
            outcome = receipt_pb2.CANCEL_OUTCOME_CANCELLED
        elif request.request_id in self.finished:
            outcome = receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        receipt = receipt_pb2.CancelReceipt(request_id=request.request_id, outcome=outcome, replica=self.name)
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)


@dataclass
class House:
    """A gateway, its engines, and a client."""

    routes: Latest[Routes]
    stub: Any
    address: str

    def request(self, request_id: str = "", deployment: str = "chat") -> inference_service_pb2.GenerateRequest:
        return inference_service_pb2.GenerateRequest(deployment=deployment, request_id=request_id)

    async def collect(self, request_id: str = "", **options: Any) -> str:
        return await self.answer(self.request(request_id), **options)

    async def answer(self, request: inference_service_pb2.GenerateRequest, **options: Any) -> str:
        async with cancelling(self.stub.Generate(request, **options)) as call:
            return "".join([event.delta.text async for message in call for event in message.events])

    async def cancel(
        self, request_id: str, *, location: str = "", timeout: float | None = None, metadata: Any = None
    ) -> receipt_pb2.CancelReceipt:
        request = inference_service_pb2.CancelRequestRequest(
            deployment="chat", request_id=request_id, location=location
        )
        response: inference_service_pb2.CancelRequestResponse = await self.stub.CancelRequest(
            request, timeout=timeout, metadata=metadata
        )
        return response.receipt


def route(index: int, address: str, *, ready: bool = True) -> Route:
    return Route("chat", index, ReplicaUid(f"r{index}"), 1, NodeId("a"), address, f"e{index}", b"key", ready, 0, 0)


CALLERS = {
    "secret-a": Caller("ada", Role.INFERENCE, tenant="blue"),
    "secret-b": Caller("bob", Role.INFERENCE),
}


class Doorman:
    """Knows two callers, and no nodes."""

    def find(self, secret: str) -> Caller | None:
        return CALLERS.get(secret)

    def of(self, node: str) -> int:
        raise AssertionError(f"node {node} calls a gateway")


def as_caller(secret: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {secret}")]


@contextlib.asynccontextmanager
async def house(
    *engines: Engine, ready: bool = True, gate: Guard | None = None, policy: RoutingPolicy = "power_of_two"
) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for each in engines:
            serving = await stack.enter_async_context(
                serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, each)], grace_s=0)
            )
            addresses.append(serving.address)
        found = tuple(route(i, each, ready=ready) for i, each in enumerate(addresses))
        routes = Latest(Routes({"chat": found}, policies={"chat": policy}))
        gateway = await stack.enter_async_context(open_gateway(routes, gateway_id="g"))
        front = await stack.enter_async_context(
            serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, gateway)], grace_s=0, gate=gate)
        )
        channel = await stack.enter_async_context(open_channel(front.address))
        yield House(routes, inference_service_pb2_grpc.InferenceServiceStub(channel), front.address)


def reason_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    return error.code(), reason_name(error_of(error).own_reason)


async def test_a_request_reaches_its_engine_with_identity_deadline_and_metadata_but_not_our_reserved_keys() -> None:
    engine = Engine("one", tells_its_name)
    async with house(engine) as it:
        forged = hop_pb2.Hop(engine_key=b"forged", principal="root").SerializeToString()
        metadata = [("traceparent", "00-1"), (HOP_KEY, forged), ("roundhouse-other", "x")]
        assert await it.collect(metadata=metadata, timeout=20) == "one"
    [hop] = engine.hops
    assert (hop.engine_uuid, hop.engine_key, hop.principal, hop.keeper, hop.attempt) == ("e0", b"key", "local", "g", 1)
    assert metadata_value(engine.metadata[0], "traceparent") == "00-1"
    assert metadata_value(engine.metadata[0], "roundhouse-other") is None
    assert engine.remaining_s[0] is not None
    assert 0 < engine.remaining_s[0] <= 20 + 2 * ROUNDING_S  # to the gateway, and on from there


async def test_the_client_learns_the_location_and_nothing_else_of_the_engine() -> None:
    async with house(Engine("one", tells_its_name)) as it:
        call = it.stub.Generate(it.request())
        assert metadata_value(await call.initial_metadata(), "roundhouse-location") == "at-one"
        assert metadata_value(await call.initial_metadata(), "secret") is None
        call.cancel()


async def test_requests_in_flight_are_spread_over_the_replicas() -> None:
    engines = [Engine(name, never_ends) for name in "abc"]
    async with house(*engines, policy="least_loaded") as it, contextlib.AsyncExitStack() as calls:
        seen = []
        for _ in range(6):
            call = await calls.enter_async_context(cancelling(it.stub.Generate(it.request())))
            seen.append((await call.read()).events[0].delta.text)
        assert sorted(seen) == ["a", "a", "b", "b", "c", "c"]


async def test_an_engine_that_refuses_before_its_first_message_is_replaced_by_another() -> None:
    engines = [Engine("bad", refuses_everybody), Engine("good", tells_its_name)]
    async with house(*engines) as it:
        assert await it.collect("r") == "good"
    assert [hop.attempt for each in engines for hop in each.hops] in ([1, 2], [1])


async def test_an_engine_that_is_not_there_is_replaced_by_another() -> None:
    async with house(Engine("good", tells_its_name)) as it:
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": (*present, route(7, "127.0.0.1:1"))}))
        assert [await it.collect() for _ in range(4)] == ["good"] * 4


async def test_engines_that_did_not_take_a_request_are_asked_last_by_the_next() -> None:
    bad = [Engine(name, refuses_everybody) for name in "abc"]
    async with house(*bad, Engine("good", tells_its_name)) as it:
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": present[:3]}))
        begin_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as refusal:  # which takes three attempts
            await it.collect()
        assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA")
        assert [len(each.hops) for each in bad] == [1, 1, 1]
        it.routes.set(Routes({"chat": present}))
        assert [await it.collect() for _ in range(5)] == ["good"] * 5
        probed = (time.monotonic() - begin_s) // FIRST_OPEN_S  # where the machine is slow
        assert all(len(each.hops) <= 1 + probed for each in bad)


async def test_when_all_fail_retries_are_a_share_of_what_comes() -> None:
    bad = [Engine(name, refuses_everybody) for name in "abc"]
    async with house(*bad) as it:
        begin_s = time.monotonic()
        for _ in range(60):
            with pytest.raises(grpc.RpcError) as refusal:
                await it.collect()
            assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA")
        floor = FLOOR_PER_S * (time.monotonic() - begin_s)
    assert 60 + MOST <= sum(len(each.hops) for each in bad) <= 60 * (1 + RETRY_FRACTION) + MOST + floor


async def test_an_engine_that_refuses_what_a_caller_asks_gets_the_next_request_all_the_same() -> None:
    async with house(Engine("full", is_full)) as it:
        present = it.routes.get().replicas["chat"]
        for _ in range(20):
            with pytest.raises(grpc.RpcError):
                await it.collect()
        it.routes.set(Routes({"chat": (*present, replace(route(1, "127.0.0.1:1"), waiting_count=99))}))
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect()
        assert reason_of(refusal.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


async def test_an_engine_that_breaks_on_every_request_is_asked_last() -> None:
    broken, good = Engine("broken", breaks), Engine("good", tells_its_name)
    async with house(broken, good, policy="round_robin") as it:
        for _ in range(12):
            with contextlib.suppress(grpc.RpcError):
                await it.collect()
        assert len(broken.hops) == LEAST_COUNT


async def test_requests_of_a_session_go_to_one_engine_and_so_do_prompts_that_begin_alike() -> None:
    engines = [Engine(name, tells_its_name) for name in "abcd"]
    async with house(*engines) as it:
        for number in range(4):
            request = it.request()
            request.options.session_key = f"session {number}"
            assert len({await it.answer(request) for _ in range(6)}) == 1
        front = "a long story that comes before every question " * 100
        answers = set()
        for number in range(6):
            request = it.request()
            request.prompt.add(text=front)
            request.prompt.add(text=f"question {number}")
            answers.add(await it.answer(request))
        assert len(answers) == 1


async def test_an_engine_lost_in_mid_stream_ends_the_stream_with_engine_lost_and_what_came_stays() -> None:
    half = Engine("half", breaks_after_the_first_token, is_mute=True)
    async with house(half, Engine("other", tells_its_name)) as it:
        present = it.routes.get().replicas["chat"]
        it.routes.set(Routes({"chat": (present[0],)}))
        call = it.stub.Generate(it.request("r"))
        assert (await call.read()).events[0].delta.text == "half"
        with pytest.raises(grpc.RpcError) as refusal:
            await call.read()
        assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
        it.routes.set(Routes({"chat": (present[1],)}))
        assert (await it.cancel("r", timeout=1)).outcome == receipt_pb2.CANCEL_OUTCOME_LOST


async def breaks_after_much(engine: Engine, request: Any, context: Any) -> None:
    for _ in range(MUCH):
        await context.write(text("x" * 1000))
    raise Unreachable("going down: try again", reason=errors_pb2.ERROR_REASON_DRAINING)


async def test_all_that_came_before_an_error_reaches_a_client_that_reads_slowly() -> None:
    small = [("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0)]
    async with house(Engine("much", breaks_after_much)) as it, open_channel(it.address, options=small) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        count = 0

        async def read_slowly() -> None:
            nonlocal count
            async for message in stub.Generate(it.request()):
                count += sum(len(event.delta.text) for event in message.events)
                await asyncio.sleep(0.002)

        with pytest.raises(grpc.RpcError) as error:
            await read_slowly()
        assert reason_of(error.value) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
        assert count == MUCH * 1000


async def test_a_refusal_of_the_request_itself_passes_through_with_its_details() -> None:
    engines = [Engine("full", is_full), Engine("too", is_full)]
    async with house(*engines) as it:
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect()
        assert reason_of(refusal.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert error_of(refusal.value).retry_after_s == 2
    assert sum(len(each.hops) for each in engines) == 1


async def test_a_client_that_leaves_has_its_request_cancelled_at_the_engine() -> None:
    engine = Engine("one", never_ends)
    async with house(engine) as it:
        call = it.stub.Generate(it.request("mine"))
        await call.read()
        call.cancel()
        assert await asyncio.wait_for(engine.cancels.get(), 10) == "mine"
        assert engine.causes == [receipt_pb2.CANCEL_CAUSE_DISCONNECT]


async def test_a_request_whose_id_is_in_use_goes_to_the_engine_that_has_it_which_may_refuse_it() -> None:
    engines = [Engine(name, never_ends_but_knows_ids) for name in "abc"]
    async with house(*engines) as it:
        first = it.stub.Generate(it.request("same"))
        await first.read()
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refusal:
                await it.collect("same")
            assert reason_of(refusal.value) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_EXISTS")
        assert not first.done()
        first.cancel()
    assert sorted(len(each.hops) for each in engines) == [0, 0, 4]


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


async def test_replicas_that_all_refuse_are_not_called_lost() -> None:
    async with house(*[Engine(name, refuses_everybody) for name in "abc"]) as it:
        with pytest.raises(grpc.RpcError) as refusal:
            await it.collect("r")
    assert reason_of(refusal.value) == (grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA")
    assert error_of(refusal.value).retry_after_s is not None


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


@pytest.mark.parametrize(
    ("routes", "request_id", "deployment", "want"),
    [
        pytest.param(Routes({}), "", "chat", ("NOT_FOUND", "DEPLOYMENT_NOT_FOUND"), id="unknown deployment"),
        pytest.param(Routes({"chat": ()}), "", "chat", ("UNAVAILABLE", "NO_READY_REPLICA"), id="no replica"),
        pytest.param(
            Routes({"chat": ()}, frozenset({"chat"})),
            "",
            "chat",
            ("FAILED_PRECONDITION", "DEPLOYMENT_DELETING"),
            id="being deleted",
        ),
        pytest.param(
            Routes({}, is_current=False), "", "chat", ("UNAVAILABLE", "INTERRUPTED"), id="unknown while nobody tells"
        ),
        pytest.param(Routes({}), "", "", ("INVALID_ARGUMENT", "FIELD_INVALID"), id="no deployment named"),
        pytest.param(Routes({}), "", "deployments/chat", ("INVALID_ARGUMENT", "FIELD_INVALID"), id="a name, not an id"),
        pytest.param(Routes({}), "a b", "chat", ("INVALID_ARGUMENT", "FIELD_INVALID"), id="a request id with a space"),
    ],
)
async def test_a_request_that_cannot_be_routed_is_refused(
    routes: Routes, request_id: str, deployment: str, want: tuple[str, str]
) -> None:
    async with house() as it:
        it.routes.set(routes)
        with pytest.raises(grpc.RpcError) as refusal:
            await it.stub.Generate(it.request(request_id, deployment)).read()
        code, reason = reason_of(refusal.value)
        assert (code.name, reason) == want


async def test_an_engine_learns_whose_a_request_is_and_not_by_which_token() -> None:
    engine = Engine("one", tells_its_name)
    async with house(engine, gate=Guard(Doorman(), Doorman(), SystemClock())) as it:
        for secret in CALLERS:
            await it.collect(metadata=as_caller(secret))
    assert [(hop.principal, hop.tenant) for hop in engine.hops] == [("ada", "blue"), ("bob", "")]
    assert [metadata_value(each, "authorization") for each in engine.metadata] == [None, None]


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
