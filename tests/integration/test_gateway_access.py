"""A gateway before a control plane that asks callers who they are: over TLS, and all real but the model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controlplane.gateway_config import GatewayConfig
from controlplane.gateway_role import running
from roundhouse.client import Client
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import Forbidden, NotFound, RoundhouseError, Unauthenticated, Unreachable
from roundhouse.kit.server import Listen
from roundhouse.kit.tls import ServerTls
from roundhouse.v1 import access_pb2, deployment_pb2, receipt_pb2
from tests.support.plane import reason_of, wanted
from tests.support.scripted_agent import ScriptedAgent
from tests.support.scripted_engine import IDENTITY, ScriptedEngine, scripted_engine
from tests.support.secured import Secured, secured_plane

PATIENCE_S = 30.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NODES = "roundhouse.v1.NodeService"


async def until_health(address: str, ca: Path | None, service: str, *, serves: bool = True) -> None:
    """Watches the health of a service until it serves, or does not."""
    async with open_channel(address, ca=ca) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        async with asyncio.timeout(PATIENCE_S), cancelling(stub.Watch(request)) as call:
            while ((await call.read()).status == SERVING) is not serves:
                pass


@dataclass(frozen=True)
class House:
    """A control plane that asks, one engine, and a gateway before both."""

    direct: Secured
    through: Secured  # the same, asked through the gateway
    engine: ScriptedEngine
    life: contextlib.AsyncExitStack  # of the control plane and the agent

    async def until(self, service: str, *, serves: bool = True) -> None:
        """Waits until the gateway serves a service, or does not."""
        await until_health(self.through.address, self.through.ca, service, serves=serves)

    async def text(self, token: str | None) -> str:
        """Asks for a text through the gateway, once the token is known there."""
        async with asyncio.timeout(PATIENCE_S), self.through.client(token) as client:
            while True:
                try:
                    return await client.generate("chat", "abc").text()
                except Unauthenticated:  # what was made a moment ago
                    await asyncio.sleep(0.02)


def config_of(plane: Secured, token: str | None) -> GatewayConfig:
    tls = ServerTls(plane.certs / "server.pem", plane.certs / "server.key")
    return GatewayConfig(Listen("127.0.0.1", 0, tls), plane.address, plane.ca, token, stop_grace_s=0.0)


async def serve_on(plane: Secured, engine: ScriptedEngine, life: contextlib.AsyncExitStack) -> None:
    """Deploys, and reports the engine as that of the only replica, for as long as the life lasts."""
    agent = ScriptedAgent("one")
    agent.is_keen = False
    shown = await plane.enroll("one", await plane.join_token())
    await life.enter_async_context(agent.joined(plane.agents, ca=plane.ca, client=shown))
    async with plane.operator() as client:
        await client.deployments.create(wanted("chat"))
        await agent.assigned(lambda assignment: len(assignment.engines) == 1)
        agent.become(
            deployment_pb2.REPLICA_STATE_READY,
            address=engine.address,
            engine_uuid=IDENTITY.engine_uuid,
            engine_key=IDENTITY.engine_key,
        )
        await client.deployments.wait_ready("chat", timeout_s=PATIENCE_S)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with scripted_engine() as engine, contextlib.AsyncExitStack() as life:
        plane = await life.enter_async_context(secured_plane(tmp_path))
        await serve_on(plane, engine, life)
        async with running(config_of(plane, plane.operator_token)) as serving:
            it = House(plane, replace(plane, address=serving.address), engine, life)
            await it.until(NODES)
            yield it


async def refused(client: Client) -> RoundhouseError:
    """Asks for a text, which must be refused; returns the error."""
    with pytest.raises(RoundhouseError) as refusal:
        await client.generate("chat", "abc").text()
    return refusal.value


async def test_each_caller_has_the_rights_that_he_has_at_the_control_plane(house: House) -> None:
    viewer = await house.direct.token("vera", "viewer")
    inference = await house.direct.token("ina", "inference", tenant="blue")
    assert await house.text(inference) == await house.text(house.direct.operator_token) != ""
    for token, kind, reason in (
        (viewer, Forbidden, "ROLE_TOO_LOW"),
        (None, Unauthenticated, "TOKEN_INVALID"),
        ("rha_wrong", Unauthenticated, "TOKEN_INVALID"),
    ):
        async with house.direct.client(token) as direct, house.through.client(token) as through:
            errors = [await refused(each) for each in (direct, through)]
            assert [(type(each), reason_of(each)) for each in errors] == [(kind, reason)] * 2
            assert vars(errors[0]) == vars(errors[1])
    async with house.through.client(viewer) as client:
        assert [each.name for each in (await client.deployments.list()).deployments] == ["deployments/chat"]
        with pytest.raises(Forbidden, match="ScaleDeployment needs the role operator"):
            await client.deployments.scale("chat", 2)
    async with house.through.client() as client:
        with pytest.raises(Unauthenticated):  # what is passed on does not go in the name of the gateway
            await client.deployments.list()


async def test_the_engine_is_told_who_calls_and_on_whose_account(house: House) -> None:
    secret = await house.direct.token("ina", "inference", tenant="blue")
    await house.text(secret)
    assert {(work.key.partition("/")[0], work.tenant) for work in house.engine.runner.works.values()} == {
        ("ina", "blue")
    }
    async with house.through.client(secret) as client:
        who = await client.access.caller()
    assert (who.principal, who.role, who.tenant) == ("ina", access_pb2.ACCESS_ROLE_INFERENCE, "blue")


@contextlib.asynccontextmanager
async def streaming(house: House, token: str, request_id: str) -> AsyncIterator[asyncio.Task[str]]:
    """Gives a task that reads a text through the gateway which does not end by itself, once it has begun."""
    await house.text(token)
    begun = house.engine.runner.entered_count
    house.engine.runner.hold()
    async with house.through.client(token) as client:
        task = asyncio.create_task(client.generate("chat", "abc", request_id=request_id).text())
        await house.engine.runner.entered(begun + 1)
        try:
            yield task
        finally:
            house.engine.runner.go()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_token_that_is_deleted_ends_its_streams_at_the_gateway_too_and_gets_no_others(house: House) -> None:
    secret = await house.direct.token("ina", "inference")
    async with asyncio.timeout(PATIENCE_S), streaming(house, secret, "r1") as stream:
        async with house.direct.operator() as operator:
            await operator.access.delete("ina")
        with pytest.raises(Unauthenticated, match="the token of this call has ended"):
            await stream
        await house.engine.asked("r1")  # and the engine is told
        async with house.through.client(secret) as client:
            assert isinstance(await refused(client), Unauthenticated)


@pytest.mark.slow  # it takes the time of the token
async def test_a_token_whose_time_is_over_ends_its_streams_while_the_control_plane_is_away(house: House) -> None:
    secret = await house.direct.token("ina", "inference", lifetime_s=4.0)
    async with asyncio.timeout(PATIENCE_S), streaming(house, secret, "r1") as stream:
        await house.life.aclose()
        with pytest.raises(Unauthenticated, match="the token of this call has ended"):
            await stream


async def test_nobody_cancels_the_request_of_another_principal_through_a_gateway(house: House) -> None:
    ina, bob = [await house.direct.token(name, "inference") for name in ("ina", "bob")]
    await house.text(bob)
    async with asyncio.timeout(PATIENCE_S), streaming(house, ina, "r1") as stream:
        async with house.through.client(bob) as client:
            assert (await client.cancel("chat", "r1")).outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        assert not stream.done()
        house.engine.runner.go()
        assert await stream


async def test_with_the_control_plane_away_those_who_are_known_are_served_and_nobody_else(house: House) -> None:
    viewer, inference = [await house.direct.token(role, role) for role in ("viewer", "inference")]
    assert await house.text(inference)
    operator = house.direct.operator_token
    await house.life.aclose()
    await house.until(NODES, serves=False)
    assert await house.text(inference)
    assert await house.text(operator)
    async with house.through.client(viewer) as client:
        assert isinstance(await refused(client), Forbidden)
    async with house.through.client() as client:
        assert isinstance(await refused(client), Unauthenticated)
    async with house.through.client("rha_new") as client:
        assert isinstance(await refused(client), Unreachable)  # it may have been made meanwhile


async def test_a_gateway_that_the_control_plane_does_not_know_serves_nobody(tmp_path: Path) -> None:
    async with secured_plane(tmp_path) as plane:
        viewer = await plane.token("vera", "viewer")
        for token in (None, "rha_wrong", viewer):
            async with running(config_of(plane, token)) as serving:
                through = replace(plane, address=serving.address)
                async with through.operator() as client:
                    assert isinstance(await refused(client), Unreachable)
                    assert (await client.access.caller()).principal == "operator"  # the control plane asks itself


async def until_refused(client: Client, kind: type[RoundhouseError]) -> None:
    """Asks for a text until that is refused as it should be, which it is once the gateway was told."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if isinstance(await refused(client), kind):
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("has_token", [True, False], ids=["that has a token", "that has none"])
async def test_a_gateway_asks_as_soon_as_its_control_plane_does_and_does_not_cease(
    tmp_path: Path, has_token: bool
) -> None:
    async with secured_plane(tmp_path) as plane:
        operator = plane.operator_token
    async with contextlib.AsyncExitStack() as life:
        plane = await life.enter_async_context(secured_plane(tmp_path, asks=False))
        port = Listen.parse(plane.address).port
        async with (
            running(config_of(plane, operator if has_token else None)) as serving,
            replace(plane, address=serving.address).client() as client,
        ):
            await until_refused(client, NotFound)  # everybody is let in, to a fleet that has nothing
            await life.aclose()
            async with secured_plane(tmp_path, port=port):
                await until_refused(client, Unauthenticated)
            await until_health(serving.address, plane.ca, NODES, serves=False)
            async with secured_plane(tmp_path, port=port, asks=False):
                await until_health(serving.address, plane.ca, NODES)
                assert isinstance(await refused(client), Unauthenticated)
