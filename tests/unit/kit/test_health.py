"""Health as others ask for it over `grpc.health.v1`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.health import Health
from roundhouse.kit.server import Listen, Serving, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import node_service_pb2

NODES = "roundhouse.v1.NodeService"
SERVICE = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], object())
LOOPBACK = Listen("127.0.0.1", 0)
STATUS = health_pb2.HealthCheckResponse
METHODS = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name


@dataclass
class World:
    """A server of ours, and somebody who asks how it is."""

    serving: Serving
    stub: Any

    async def check(self, service: str) -> int:
        answer: STATUS = await self.stub.Check(of(service))
        return answer.status

    def watch(self, service: str) -> contextlib.AbstractAsyncContextManager[Any]:
        return cancelling(self.stub.Watch(of(service)))


def of(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serve(LOOPBACK, [SERVICE], grace_s=0) as serving, open_channel(serving.address) as channel:
        yield World(serving, health_pb2_grpc.HealthStub(channel))


async def test_a_watcher_learns_of_every_change(world: World) -> None:
    async with world.watch(NODES) as call:
        assert (await call.read()).status == STATUS.SERVING
        for is_healthy, status in [(False, STATUS.NOT_SERVING), (True, STATUS.SERVING)]:
            await world.serving.set_healthy(is_healthy, NODES)
            assert (await call.read()).status == status


async def test_a_watcher_that_leaves_takes_nothing_from_the_others(world: World) -> None:
    async with world.watch(NODES) as stays:
        assert (await stays.read()).status == STATUS.SERVING
        async with world.watch(NODES) as leaves:
            assert (await leaves.read()).status == STATUS.SERVING
        # On the same connection: the server has heard that the other one left before it hears this.
        assert await world.check(NODES) == STATUS.SERVING
        await world.serving.set_healthy(False, NODES)
        assert (await asyncio.wait_for(stays.read(), 10)).status == STATUS.NOT_SERVING


async def test_a_watcher_hears_nothing_of_other_services(world: World) -> None:
    async with world.watch("") as call:
        assert (await call.read()).status == STATUS.SERVING
        await world.serving.set_healthy(False, NODES)
        assert await world.check(NODES) == STATUS.NOT_SERVING
        await world.serving.set_healthy(False)
        assert (await call.read()).status == STATUS.NOT_SERVING


async def test_a_service_that_is_not_known_is_watched_until_it_is(world: World) -> None:
    async with world.watch("later") as call:
        assert (await call.read()).status == STATUS.SERVICE_UNKNOWN
        await world.serving.set_healthy(True, "later")
        assert (await call.read()).status == STATUS.SERVING


@pytest.mark.parametrize("service", ["later", "x" * 20_000], ids=["short", "long"])
async def test_a_check_of_a_service_that_is_not_known_is_not_found(world: World, service: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await world.check(service)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.skipif("List" not in METHODS, reason="this version of grpcio-health-checking does not describe List")
async def test_all_services_are_listed_where_the_contract_has_it(world: World) -> None:
    await world.serving.set_healthy(False, NODES)
    messages: Any = health_pb2
    answer = await world.stub.List(messages.HealthListRequest())
    statuses = {name: each.status for name, each in answer.statuses.items()}
    assert statuses == {"": STATUS.SERVING, NODES: STATUS.NOT_SERVING}


async def test_watchers_learn_that_a_server_ends() -> None:
    async with contextlib.AsyncExitStack() as server:
        serving = await server.enter_async_context(serve(LOOPBACK, [SERVICE], grace_s=30))
        async with open_channel(serving.address) as channel:
            async with World(serving, health_pb2_grpc.HealthStub(channel)).watch(NODES) as call:
                assert (await call.read()).status == STATUS.SERVING
                ending = asyncio.create_task(server.aclose())
                assert (await call.read()).status == STATUS.NOT_SERVING
            await ending


async def test_what_has_ended_never_serves_again() -> None:
    health = Health()
    health.set(NODES, True)
    health.end()
    health.set(NODES, True)
    context: Any = None  # asked only about what is not known
    assert (await health.Check(of(NODES), context)).status == STATUS.NOT_SERVING
