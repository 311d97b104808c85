"""Requests wait in a real gateway for engines that a script paces; tenants come with their tokens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from benchmarks.support.simulated_engine import SimulatedEngine
from controlplane.auth.caller import Caller
from controlplane.auth.gate import Guard
from controlplane.auth.methods import Role
from controlplane.gateway.live import RequestKey
from controlplane.gateway.service import Gateway, open_gateway
from controlplane.model import AdmissionSettings, NodeId, Quota, ReplicaUid, Route, Routes
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import RoundhouseError
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.kit.tasks import looping
from roundhouse.kit.times import to_duration
from roundhouse.v1 import generation_pb2, receipt_pb2
from roundhouse.v1 import inference_service_pb2 as pb
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub
from tests.support.cluster import eventually

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["InferenceService"]
BATCH = 2
ROOM = BATCH + 1  # with what an engine is to have at hand; and one more for a tenant that has less than its share
PATIENCE_S = 20.0


class Doorman:
    """Knows everybody by the name of their tenant."""

    def find(self, secret: str) -> Caller | None:
        return Caller(f"somebody of {secret}", Role.INFERENCE, tenant=secret)

    def of(self, node: str) -> int:
        raise AssertionError(f"node {node} calls a gateway")


@dataclass
class House:
    """A gateway, an engine, and a client."""

    stub: Any
    engine: SimulatedEngine
    routes: Latest[Routes]
    gateway: Gateway

    def call(
        self,
        tenant: str = "ada",
        *,
        request_id: str = "",
        prompt: int = 4,
        output: int = 4,
        timeout: float | None = PATIENCE_S,
        deployment: str = "chat",
        **options: Any,
    ) -> Any:
        request = pb.GenerateRequest(
            deployment=deployment,
            request_id=request_id,
            prompt=[generation_pb2.ContentPart(token_ids=generation_pb2.TokenIds(ids=range(prompt)))],
            sampling=generation_pb2.SamplingParams(max_tokens=output),
            options=generation_pb2.RequestOptions(**options),
        )
        return self.stub.Generate(request, metadata=_as(tenant), timeout=timeout)

    async def run(self, tenant: str = "ada", **arguments: Any) -> list[generation_pb2.GenerationEvent]:
        async with cancelling(self.call(tenant, **arguments)) as call:
            return [event async for message in call for event in message.events]

    async def refused(self, tenant: str = "ada", **arguments: Any) -> RoundhouseError:
        with pytest.raises(grpc.RpcError) as raised:
            await self.run(tenant, **arguments)
        return error_of(raised.value)

    async def cancel(self, request_id: str, tenant: str = "ada") -> receipt_pb2.CancelReceipt:
        request = pb.CancelRequestRequest(deployment="chat", request_id=request_id)
        response: pb.CancelRequestResponse = await self.stub.CancelRequest(request, metadata=_as(tenant))
        return response.receipt

    @contextlib.asynccontextmanager
    async def calling(
        self, request_id: str, tenant: str = "ada", **arguments: Any
    ) -> AsyncIterator[asyncio.Task[list[generation_pb2.GenerationEvent]]]:
        """Has a request wait in the gateway when the block begins; its client leaves with the block."""
        key = RequestKey(f"somebody of {tenant}", "chat", request_id)
        task = asyncio.create_task(self.run(tenant, request_id=request_id, **arguments), name=request_id)
        try:
            await eventually(lambda: self.gateway.admission.is_waiting(key), f"{request_id} waits")
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    @contextlib.asynccontextmanager
    async def waiting(self, request_id: str, tenant: str = "ada", **arguments: Any) -> AsyncIterator[None]:
        """The same of one that waits all through the block."""
        async with self.calling(request_id, tenant, **arguments) as task:
            yield
            assert not task.done()

    @contextlib.asynccontextmanager
    async def busy(self, tenant: str = "filler") -> AsyncIterator[None]:
        """Has all places taken for the block."""
        async with contextlib.AsyncExitStack() as stack:
            for each in (*[tenant] * ROOM, "another"):
                call = await stack.enter_async_context(cancelling(self.call(each, output=10**6)))
                await call.read()
            yield


def _as(tenant: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {tenant}")]


def _reason(error: RoundhouseError) -> str:
    return reason_name(error.own_reason)


def _route(address: str, deployment: str = "chat") -> Route:
    return Route(
        deployment, 0, ReplicaUid("r"), 1, NodeId("a"), address, "e", b"k", True, 0, 0, max_running_count=BATCH
    )


@contextlib.asynccontextmanager
async def house(settings: AdmissionSettings | None = None, *, step_s: float = 0.005) -> AsyncIterator[House]:
    engine = SimulatedEngine(batch=BATCH, step_s=step_s, prompt_tokens=1000)
    gate = Guard(Doorman(), Doorman(), SystemClock())
    async with (
        looping({"engine": engine.run}),
        serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, engine)], grace_s=0) as back,
    ):
        routes = Latest(Routes({"chat": (_route(back.address),), "other": (_route(back.address, "other"),)}))
        async with (
            open_gateway(routes, settings=settings) as gateway,
            serve(Listen("127.0.0.1", 0), [Service(DESCRIPTOR, gateway)], grace_s=0, gate=gate) as front,
            open_channel(front.address) as channel,
        ):
            yield House(InferenceServiceStub(channel), engine, routes, gateway)


async def test_two_tenants_that_send_more_than_is_computed_get_the_same_whatever_they_send() -> None:
    async with house(step_s=0.003) as it:
        stop = asyncio.Event()

        async def send(tenant: str, prompt: int, output: int) -> None:
            while not stop.is_set():
                await it.run(tenant, prompt=prompt, output=output)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(send("large", 60, 30))
                group.create_task(send("small", 2, 3))
            served = it.engine.served
            await eventually(lambda: min(served.get(each, 0) for each in ("large", "small")) > 1500, "it is warm")
            before = dict(served)
            await eventually(lambda: sum(served.values()) - sum(before.values()) > 8_000, "much was served")
            got = {tenant: served[tenant] - before[tenant] for tenant in before}
            stop.set()
        assert got["large"] / sum(got.values()) == pytest.approx(0.5, abs=0.04)  # a large one is 2 % of all
        assert it.engine.most_waiting <= ROOM + 1 - BATCH


async def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async with house(AdmissionSettings(queue_requests=1)) as it, it.busy(), it.waiting("one"):
        error = await it.refused()
        assert _reason(error) == "QUEUE_FULL"
        assert error.retry_after_s is not None
        assert 0.1 <= error.retry_after_s <= 60


async def test_a_tenant_that_fills_the_queue_makes_room_for_another() -> None:
    async with (
        house(AdmissionSettings(queue_requests=2)) as it,
        it.busy("bob"),
        it.waiting("b0", "bob"),
        it.calling("b1", "bob") as last,
        it.waiting("a0", "ada"),
    ):
        with pytest.raises(grpc.RpcError) as put_out:
            await last
        assert _reason(error_of(put_out.value)) == "QUEUE_FULL"
        receipt = await it.cancel("b1", "bob")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_EVICTED


async def test_one_whose_turn_would_come_after_its_deadline_is_refused_at_once() -> None:
    async with house() as it, it.busy("bob"), it.waiting("w", "ada", prompt=100_000):
        await eventually(lambda: it.engine.served.get("bob", 0) > 3000, "something is measured")
        error = await it.refused("ada", timeout=10)
        assert _reason(error) == "DEADLINE_TOO_NEAR"
        assert error.retry_after_s is not None
        assert "after its deadline in 10." in error.message  # rounded up on its way, perhaps


async def test_one_whose_deadline_passes_while_it_waits_is_dropped() -> None:
    async with house() as it, it.busy():
        error = await it.refused(request_id="late", timeout=0.3)
        assert _reason(error) == "DEADLINE_EXCEEDED"
        receipt = await it.cancel("late")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_DEADLINE
        error = await it.refused(timeout=None, max_duration=to_duration(0.1))
        assert _reason(error) == "DEADLINE_EXCEEDED"
        assert "while the request waited" in error.message
        assert it.gateway.admission.waiting("chat") == []


async def test_the_repeats_of_one_that_waits_end_with_it_and_the_line_goes_on() -> None:
    async with house() as it, it.busy(), it.calling("r", output=4) as first, it.waiting("other"):
        repeats = [asyncio.create_task(it.run(request_id="r", output=4)) for _ in range(2)]
        assert (await it.cancel("r")).outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert (await first)[0].finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_CLIENT
        for end in await asyncio.gather(*repeats, return_exceptions=True):
            if isinstance(end, grpc.RpcError):  # it came after the cancel
                assert _reason(error_of(end)) == "REQUEST_TOMBSTONED"
            else:
                assert not isinstance(end, BaseException), end
                assert end[0].finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_CLIENT
        assert [key.request_id for key in it.gateway.admission.waiting("chat")] == ["other"]


async def test_one_that_is_cancelled_while_it_waits_ends_with_that_and_its_receipt_says_that_nothing_was_computed() -> (
    None
):
    async with house() as it, it.busy():
        async with it.calling("r") as call:
            before = dict(it.engine.served)
            receipt = await it.cancel("r")
            events = await call
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_CLIENT
        assert (receipt.output_token_count, receipt.HasField("output_token_count")) == (0, True)
        assert not receipt.HasField("freed_block_count")
        assert await it.cancel("r") == receipt
        assert [each.WhichOneof("event") for each in events] == ["finished", "usage"]
        assert events[0].finished.reason == generation_pb2.FINISH_REASON_CANCELLED
        assert events[0].finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_CLIENT
        assert "ada" not in before | it.engine.served


async def test_one_whose_client_leaves_while_it_waits_leaves_a_receipt_and_nothing_else() -> None:
    async with house() as it, it.busy():
        async with it.waiting("r"):
            pass
        await eventually(lambda: it.gateway.admission.waiting("chat") == [], "it has left")
        receipt = await it.cancel("r")
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert receipt.cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
        assert "ada" not in it.engine.served


async def test_a_quota_holds_for_its_tenant_alone_and_says_when_there_is_more() -> None:
    settings = AdmissionSettings(quotas={"ada": Quota(2.0, None), "cy": Quota(None, 60.0)})
    async with house(settings) as it:
        errors = [each for each in await asyncio.gather(*(_outcome(it, "ada") for _ in range(6))) if each is not None]
        assert {_reason(each) for each in errors} == {"QUOTA_EXCEEDED"}
        assert len(errors) >= 3
        assert [(each.subject, each.description) for each in errors[0].quota] == [
            ("tenants/ada", "2 requests a second at this gateway")
        ]
        assert errors[0].retry_after_s is not None
        assert 0 < errors[0].retry_after_s <= 0.5
        assert await _outcome(it, "bob") is None
        assert await _outcome(it, "cy", prompt=500) is None  # it has some left, and pays the rest back
        error = await _outcome(it, "cy")
        assert error is not None
        assert error.retry_after_s == 60.0


async def test_what_no_engine_has_run_costs_nothing() -> None:
    async with house(AdmissionSettings(quotas={"ada": Quota(None, 60.0)})) as it:
        it.engine.longest_prompt = 100
        assert _reason(await it.refused(prompt=500)) == "FIELD_INVALID"
        await it.run()


async def test_one_deployment_is_not_held_up_by_the_queue_of_another() -> None:
    async with house() as it, it.busy(), it.waiting("r"):
        call = it.call(deployment="other")
        async with cancelling(call):
            assert (await call.read()).events[0].HasField("started")


async def test_where_there_is_no_ready_engine_any_more_those_that_wait_are_told() -> None:
    async with house() as it, it.busy(), it.calling("r") as call:
        routes = it.routes.get()
        it.routes.set(replace(routes, replicas={"chat": (replace(routes.replicas["chat"][0], is_ready=False),)}))
        with pytest.raises(grpc.RpcError) as refusal:
            await call
        assert _reason(error_of(refusal.value)) == "NO_READY_REPLICA"


async def test_what_has_waited_has_so_much_less_time_at_the_engine() -> None:
    async with house() as it:
        async with it.busy(), it.calling("r", max_duration=to_duration(30)) as call:
            begin_s = asyncio.get_running_loop().time()
            await eventually(lambda: asyncio.get_running_loop().time() - begin_s > 0.2, "some time passes")
            it.engine.finish()
            await call
        [left] = [each for each in it.engine.max_durations_s if each]
        assert 0 < left < 29.9


async def _outcome(it: House, tenant: str, **arguments: Any) -> RoundhouseError | None:
    try:
        await it.run(tenant, **arguments)
    except grpc.RpcError as error:
        return error_of(error)
    return None
