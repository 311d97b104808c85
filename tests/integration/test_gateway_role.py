"""A gateway in front of a control plane, both with everything real; engines are the business of other tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from controlplane.gateway_config import GatewayConfig
from controlplane.gateway_role import running
from roundhouse.client import Client
from roundhouse.internal.v1 import agent_service_pb2_grpc, fleet_service_pb2, fleet_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import NotFound, Unreachable
from roundhouse.kit.server import Listen
from tests.support.commands import roundhouse
from tests.support.plane import Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
INFERENCE, NODES = "roundhouse.v1.InferenceService", "roundhouse.v1.NodeService"


@dataclass(frozen=True)
class House:
    """A control plane, a gateway in front of it, and a client of that."""

    plane: Plane
    through: Plane  # the same control plane, asked through the gateway
    channel: grpc.aio.Channel  # to the gateway
    plane_life: contextlib.AsyncExitStack  # close it, and the control plane is away

    async def until_health(self, service: str, wanted: int) -> None:
        """Watches the health of a service until it is as wanted."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        async with asyncio.timeout(20), cancelling(stub.Watch(health_pb2.HealthCheckRequest(service=service))) as call:
            while (await call.read()).status != wanted:
                pass


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as life, contextlib.AsyncExitStack() as stack:
        plane = await life.enter_async_context(plane_on(tmp_path / "controlplane"))
        config = GatewayConfig(
            Listen("127.0.0.1", 0), plane.address, address_file=tmp_path / "address", stop_grace_s=0.0
        )
        serving = await stack.enter_async_context(running(config))
        channel = await stack.enter_async_context(open_channel(serving.address))
        assert (tmp_path / "address").read_text() == f"{serving.address}\n"
        it = House(plane, Plane(serving.address, channel), channel, life)
        await it.until_health(NODES, SERVING)
        yield it


async def services_of(address: str) -> set[str]:
    async with open_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        async with cancelling(stub.ServerReflectionInfo()) as call:
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            return {each.name for each in answer.list_services_response.service}


async def test_a_gateway_serves_clients_all_that_a_control_plane_does_and_nothing_internal(house: House) -> None:
    direct, through = await services_of(house.plane.address), await services_of(house.through.address)
    assert through == {each for each in direct if not each.startswith("roundhouse.internal.")}


async def test_what_is_internal_is_not_to_be_had_through_a_gateway(house: House) -> None:
    fleet: Any = fleet_service_pb2_grpc.FleetServiceStub(house.channel)
    with pytest.raises(grpc.RpcError) as refusal:
        await fleet.WatchRoutes(fleet_service_pb2.WatchRoutesRequest()).read()
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    agents: Any = agent_service_pb2_grpc.AgentServiceStub(house.channel)
    with pytest.raises(grpc.RpcError) as refusal:
        await agents.Join().read()
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_deployments_are_made_watched_and_refused_through_a_gateway_as_without(house: House) -> None:
    async with ScriptedAgent("one").joined(house.plane.address):
        made = await house.through.create("chat", replica_count=2)
        assert made.uid == (await house.plane.get("chat")).uid
        seen = await house.through.until(lambda all_: "deployments/chat" in all_)
        assert seen["deployments/chat"].uid == made.uid
        direct, through = [await refused(each.create("chat", replica_count=3)) for each in (house.plane, house.through)]
        assert (type(direct), vars(direct)) == (type(through), vars(through))
        direct, through = [await refused(each.get("ghost")) for each in (house.plane, house.through)]
        assert isinstance(through, NotFound)
        assert vars(direct) == vars(through)


async def test_the_command_line_talks_to_a_gateway_as_to_a_control_plane(house: House) -> None:
    async with ScriptedAgent("one").joined(house.plane.address):
        launched = await roundhouse(house.through.address, "launch", "demo", "--model-uid", "chat")
        assert launched.status == 0, launched.err
        assert (await house.plane.get("chat")).replica_count == 1
        listed = await roundhouse(house.through.address, "list")
        assert (listed.status, "chat" in listed.out) == (0, True)


async def test_while_the_control_plane_is_away_that_is_said_and_health_tells_models_from_the_rest(
    house: House,
) -> None:
    await house.plane_life.aclose()
    await house.until_health(NODES, NOT_SERVING)
    await house.until_health(INFERENCE, SERVING)
    error = await refused(house.through.get("chat"))
    assert isinstance(error, Unreachable)
    assert reason_of(error) == "INTERRUPTED"
    assert "start it again, or check --control-plane" in error.message
    assert error.retry_after_s is not None
    async with Client(house.through.address) as client:
        with pytest.raises(Unreachable, match="whether deployment"):
            await client.generate("ghost", "Hello").text()


@contextlib.asynccontextmanager
async def deaf_gateway() -> AsyncIterator[str]:
    """Yields the address of a gateway whose control plane is not there."""
    config = GatewayConfig(Listen("127.0.0.1", 0), "127.0.0.1:1", stop_grace_s=0.0, first_grace_s=0.0)
    async with running(config) as serving:
        yield serving.address


async def test_a_gateway_that_has_never_heard_of_its_control_plane_says_that_it_does_not_serve() -> None:
    async with deaf_gateway() as address, open_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        async with Client(address) as client:
            with pytest.raises(Unreachable, match="whether callers are asked") as refusal:
                await client.generate("chat", "Hello").text()
            assert refusal.value.retry_after_s is not None


@pytest.mark.parametrize("attaches", [False, True])
async def test_a_client_that_meets_a_gateway_that_cannot_serve_yet_asks_the_next(house: House, attaches: bool) -> None:
    async with deaf_gateway() as address, Client([address, house.through.address]) as client:
        with pytest.raises(NotFound, match="ghost"):
            await (client.attach("ghost", "mine") if attaches else client.generate("ghost", "Hello")).text()
        assert client.address == house.through.address


async def test_a_client_that_meets_none_that_can_serve_is_told_so_at_once() -> None:
    async with deaf_gateway() as one, deaf_gateway() as other, Client([one, other]) as client:
        with pytest.raises(Unreachable, match="whether callers are asked"):
            await client.generate("chat", "Hello").text()


async def test_who_calls_a_gateway_before_it_has_heard_of_anything_waits_for_that(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "controlplane") as plane:
        config = GatewayConfig(Listen("127.0.0.1", 0), plane.address, stop_grace_s=0.0, first_grace_s=60.0)
        async with running(config) as serving, Client(serving.address) as client:
            with pytest.raises(NotFound, match="ghost"):
                await client.generate("ghost", "Hello").text()
