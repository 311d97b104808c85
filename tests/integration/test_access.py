"""Who may do what: a control plane that asks, over real TLS, and those who come."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from roundhouse.client import Client, SyncClient, deployment
from roundhouse.internal.v1 import agent_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import (
    AlreadyExists,
    Forbidden,
    InvalidArgument,
    NotFound,
    NotReady,
    RoundhouseError,
    Unauthenticated,
    Unreachable,
    Usage,
)
from roundhouse.kit.status import error_of, reason_name
from roundhouse.kit.tls import ClientTls
from roundhouse.v1 import access_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from tests.support.commands import Ended, roundhouse
from tests.support.plane import plane_on
from tests.support.scripted_agent import ScriptedAgent
from tests.support.secured import Secured, secured_plane

PATIENCE_S = 30.0


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured_plane(tmp_path) as it:
        yield it


def reason_of(error: RoundhouseError) -> str:
    return reason_name(error.own_reason)


async def watched(client: Client) -> None:
    """Watches deployments until that ends."""
    async with client.deployments.watch() as events:
        async for _ in events:
            pass


async def until_watching(client: Client) -> asyncio.Task[None]:
    """Returns a task that watches deployments, once it sees them."""
    sees = asyncio.Event()

    async def watching() -> None:
        async with client.deployments.watch() as events:
            async for _ in events:
                sees.set()

    task = asyncio.create_task(watching())
    async with asyncio.timeout(PATIENCE_S):
        await sees.wait()
    return task


async def test_on_one_machine_nobody_is_asked(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state") as plane, Client(plane.address) as client:
        who = await client.access.caller()
        assert (who.principal, who.role) == ("local", access_pb2.ACCESS_ROLE_OPERATOR)
        assert not (tmp_path / "state/operator.token").exists()
        for refused in (client.access.create_join_token(), client.access.revoke_node("a")):
            with pytest.raises(NotReady, match="--auth") as error:
                await refused
            assert reason_of(error.value) == "AUTHENTICATION_OFF"


@pytest.mark.parametrize("token", [None, "rha_wrong"], ids=["none", "one that nobody made"])
async def test_without_a_token_that_is_known_nothing_is_served_but_what_is_public(
    plane: Secured, token: str | None
) -> None:
    async with plane.client(token) as client:
        calls: list[Callable[[], Awaitable[object]]] = [
            client.nodes.list,
            lambda: watched(client),
            client.chat("demo", "hi").text,
            client.access.caller,
            lambda: client.deployments.create(deployment("chat", builtin="demo")),
        ]
        for call in calls:
            with pytest.raises(Unauthenticated, match="ROUNDHOUSE_TOKEN") as error:
                await call()
            assert reason_of(error.value) == "TOKEN_INVALID"
            assert "rha_wrong" not in str(error.value)


async def test_health_and_reflection_are_for_everybody(plane: Secured) -> None:
    async with open_channel(plane.address, ca=plane.ca) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        call = reflection.ServerReflectionInfo(iter([request]))
        [answer] = [each async for each in call]
    assert "roundhouse.v1.AccessService" in [each.name for each in answer.list_services_response.service]


async def test_the_first_operator_finds_a_token_in_the_state_directory_for_its_owner_alone(plane: Secured) -> None:
    assert stat.S_IMODE((plane.state_dir / "operator.token").stat().st_mode) == 0o600
    async with plane.operator() as client:
        who = await client.access.caller()
    assert (who.principal, who.role, who.tenant) == ("operator", access_pb2.ACCESS_ROLE_OPERATOR, "")


async def needed(client: Client, call: Callable[[Client], Awaitable[object]]) -> str:
    """Returns the role that a call is refused for; empty if it is let through."""
    try:
        await call(client)
    except Forbidden as error:
        return error.metadata["role"]
    except (NotFound, NotReady):
        pass  # it was let through to a fleet that has nothing
    return ""


async def launch(client: Client) -> object:
    return await client.deployments.create(deployment("chat", builtin="demo"))


async def test_a_role_allows_what_it_says_and_what_is_below_it(plane: Secured) -> None:
    calls: list[Callable[[Client], Awaitable[object]]] = [
        lambda client: client.nodes.list(),
        lambda client: client.chat("demo", "hi").text(),
        launch,
    ]
    lacks = {}
    for role in ("viewer", "inference", "operator"):
        async with plane.client(await plane.token(f"a-{role}", role)) as client:
            lacks[role] = [await needed(client, call) for call in calls]
    assert lacks == {
        "viewer": ["", "inference", "operator"],
        "inference": ["", "", "operator"],
        "operator": ["", "", ""],
    }


async def test_what_a_role_lacks_is_said(plane: Secured) -> None:
    async with plane.client(await plane.token("ada", "viewer")) as client:
        with pytest.raises(
            Forbidden, match='CreateDeployment needs the role operator, and "ada" has the role viewer: '
        ) as error:
            await launch(client)
    assert reason_of(error.value) == "ROLE_TOO_LOW"


async def test_tokens_are_listed_without_secrets_which_are_nowhere_in_the_store(plane: Secured) -> None:
    secret = await plane.token("ada", "inference", tenant="blue", lifetime_s=3600)
    async with plane.operator() as client:
        [shown] = (await client.access.list()).access_tokens
        assert (shown.name, shown.role, shown.tenant) == ("accessTokens/ada", access_pb2.ACCESS_ROLE_INFERENCE, "blue")
        assert 3500 < shown.expire_time.seconds - shown.create_time.seconds <= 3600
        assert secret not in str(shown)
        for name in ("ada", "operator", "local"):
            with pytest.raises(AlreadyExists, match=f'"{name}" exists'):
                await client.access.create(name, role="viewer")
        with pytest.raises(NotFound, match='"bob" does not exist'):
            await client.access.delete("bob")
        for wrong in ("Ada", "accessTokens/", "a/b/c"):
            with pytest.raises(InvalidArgument, match=r"access_token\.name"):
                await client.access.create(wrong, role="viewer")
        for field, options in {"tenant": {"tenant": "No Tenant"}, "expire_time": {"lifetime_s": -1.0}}.items():
            with pytest.raises(InvalidArgument, match=rf"access_token\.{field}"):
                await client.access.create("bob", role="viewer", **options)  # type: ignore[arg-type]
    stored = b"".join(each.read_bytes() for each in plane.state_dir.glob("store.sqlite*"))
    assert b"accessTokens/ada" in stored
    assert secret.encode() not in stored


async def test_a_token_outlives_the_control_plane_and_the_file_of_the_operator_too(tmp_path: Path) -> None:
    async with secured_plane(tmp_path) as plane:
        secret, operator = await plane.token("ada", "viewer"), plane.operator_token
    async with secured_plane(tmp_path) as plane, plane.client(secret) as client:
        assert (await client.access.caller()).principal == "ada"
        assert plane.operator_token == operator


async def test_a_token_that_is_deleted_ends_its_calls_and_gets_no_others(plane: Secured) -> None:
    secret = await plane.token("ada", "viewer")
    async with plane.client(secret) as client, plane.operator() as operator:
        task, other = await until_watching(client), await until_watching(operator)
        await operator.access.delete("ada")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Unauthenticated, match="the token of this call has ended"):
                await task
        with pytest.raises(Unauthenticated, match="unknown or has ended"):
            await client.nodes.list()
        assert not other.done()
        other.cancel()


async def test_a_token_whose_time_is_over_ends_its_calls(plane: Secured) -> None:
    secret = await plane.token("ada", "viewer", lifetime_s=2.0)
    async with plane.client(secret) as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unauthenticated, match="has ended"):
            await watched(client)
        with pytest.raises(Unauthenticated, match="has ended"):
            await client.nodes.list()


async def test_a_client_that_blocks_presents_its_token_too(plane: Secured) -> None:
    secret = await plane.token("ada", "viewer")

    def blocking() -> str:
        with SyncClient(plane.address, ca=plane.ca, token=secret) as client:
            return client.access.caller().principal

    assert await asyncio.to_thread(blocking) == "ada"


# ------------------------------------------------------------------------------------------------------------ agents


async def refusal(plane: Secured, agent: ScriptedAgent, address: str, shown: ClientTls | None) -> RoundhouseError:
    """Joins, which must fail; returns the error."""
    async with open_channel(address, ca=plane.ca, client=shown) as channel:
        call = agent_service_pb2_grpc.AgentServiceStub(channel).Join()
        async with cancelling(call):
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # it may have ended already
                await call.write(agent.message())
            with pytest.raises(grpc.RpcError) as error:
                await call.read()
    return error_of(error.value)


async def test_an_agent_joins_with_a_certificate_that_it_gets_once_for_a_token(plane: Secured) -> None:
    token = await plane.join_token()
    shown = await plane.enroll("a", token)
    async with ScriptedAgent("a").joined(plane.agents, ca=plane.ca, client=shown), plane.operator() as client:
        [node] = (await client.nodes.list()).nodes
        assert node.name == "nodes/a"
    with pytest.raises(grpc.RpcError) as replayed:
        await plane.enroll("b", token)
    assert replayed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error_of(replayed.value)) == "JOIN_TOKEN_INVALID"


async def test_nobody_joins_without_the_certificate_of_its_own_node(plane: Secured) -> None:
    agent = ScriptedAgent("a")
    on_the_port_of_people = await refusal(plane, agent, plane.address, None)
    assert (type(on_the_port_of_people), reason_of(on_the_port_of_people)) == (Unauthenticated, "CERTIFICATE_REQUIRED")
    # The transport refuses what it does not know, before any code of ours.
    assert isinstance(await refusal(plane, agent, plane.agents, None), Unreachable)
    assert isinstance(await refusal(plane, agent, plane.agents, plane.forged("a")), Unreachable)
    server = ClientTls((plane.certs / "server.pem").read_bytes(), (plane.certs / "server.key").read_bytes())
    assert isinstance(await refusal(plane, agent, plane.agents, server), Unreachable | Unauthenticated)
    of_another = await refusal(plane, agent, plane.agents, await plane.enroll("b", await plane.join_token()))
    assert (type(of_another), reason_of(of_another)) == (Forbidden, "NODE_MISMATCH")
    assert 'that of node "b", and the report that of "a"' in of_another.message
    async with plane.operator() as client:
        assert not (await client.nodes.list()).nodes


async def test_a_certificate_of_a_node_opens_nothing_that_is_for_people(plane: Secured) -> None:
    shown = await plane.enroll("a", await plane.join_token())
    async with open_channel(plane.agents, ca=plane.ca, client=shown) as channel:
        stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            await stub.ListDeployments(deployment_service_pb2.ListDeploymentsRequest())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_node_that_is_there_keeps_its_place_unless_a_token_is_for_it(plane: Secured) -> None:
    shown = await plane.enroll("a", await plane.join_token())
    async with ScriptedAgent("a").joined(plane.agents, ca=plane.ca, client=shown):
        with pytest.raises(grpc.RpcError) as refused:
            await plane.enroll("a", await plane.join_token())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await plane.enroll("a", await plane.join_token("a"))


async def test_a_node_that_is_revoked_is_cut_off_and_joins_again_with_a_token_of_its_own(plane: Secured) -> None:
    agent, shown = ScriptedAgent("a"), await plane.enroll("a", await plane.join_token())
    with pytest.RaisesGroup(grpc.RpcError, flatten_subgroups=True):
        async with asyncio.timeout(PATIENCE_S), agent.joined(plane.agents, ca=plane.ca, client=shown):
            async with plane.operator() as client:
                await client.access.revoke_node("a")
            await asyncio.Event().wait()  # until the session breaks
    again = await refusal(plane, agent, plane.agents, shown)
    assert 'certificates of node "a" were revoked' in again.message
    assert isinstance(again, Unauthenticated)
    fresh = await plane.enroll("a", await plane.join_token("a"))
    async with agent.joined(plane.agents, ca=plane.ca, client=fresh), plane.operator() as client:
        assert [each.name for each in (await client.nodes.list()).nodes] == ["nodes/a"]


# ---------------------------------------------------------------------------------------------------------- by hand


async def by_hand(plane: Secured, token: str | None, *arguments: str) -> Ended:
    """Runs `roundhouse` with the flags of a token and an authority."""
    flags = ("--tls-ca", str(plane.ca), *(("--token", token) if token else ()))
    return await roundhouse(plane.address, *flags, *arguments)


@pytest.mark.slow
async def test_tokens_are_given_and_taken_by_hand(plane: Secured) -> None:
    file = ("--token-file", str(plane.state_dir / "operator.token"))
    made = await by_hand(plane, None, *file, "token", "create", "ada", "--role", "viewer", "--lifetime", "90d")
    assert (made.status, made.err) == (0, "")
    secret = made.out.strip()
    who, listed, refused = await asyncio.gather(
        by_hand(plane, secret, "token", "whoami"),
        by_hand(plane, plane.operator_token, "token", "list"),
        by_hand(plane, secret, "token", "create", "eve", "--role", "operator"),
    )
    assert who.out == "ada: viewer\n"
    assert [line.split()[:2] for line in listed.out.splitlines()] == [["TOKEN", "ROLE"], ["ada", "viewer"]]
    assert refused.status == 1
    assert refused.err == (
        'roundhouse: CreateAccessToken needs the role operator, and "ada" has the role viewer: '
        "use a token with that role, or ask an operator for one\n"
    )
    deleted = await by_hand(plane, plane.operator_token, "token", "delete", "ada")
    assert deleted.out == "ada is deleted\n"
    gone = await by_hand(plane, secret, "list")
    assert (gone.status, gone.out) == (1, "")
    assert secret not in gone.err
    unsafe = await roundhouse("10.0.0.1:50050", "--token", secret, "list")
    assert (unsafe.status, unsafe.out) == (2, "")
    assert "refusing to send a token" in unsafe.err
    assert secret not in unsafe.err


async def test_a_join_token_is_made_and_a_node_revoked_by_hand(plane: Secured) -> None:
    made = await by_hand(plane, plane.operator_token, "agent", "token", "--node", "a", "--lifetime", "30m")
    shown = await plane.enroll("a", made.out.strip())
    revoked = await by_hand(plane, plane.operator_token, "agent", "revoke", "a")
    assert revoked.out == "the certificates of a are revoked\n"
    assert isinstance(await refusal(plane, ScriptedAgent("a"), plane.agents, shown), Unauthenticated)


def test_a_token_is_not_sent_where_others_could_read_it() -> None:
    for address in ("10.0.0.1:50050", "example.com:1", "[fd00::1]:1"):
        with pytest.raises(Usage, match=r"refusing to send a token to .* in the clear: give the authority"):
            Client(address, token="rha_secret")
    for address in ("127.0.0.1:50050", "localhost:1", "[::1]:1", "unix:/run/roundhouse"):
        Client(address, token="rha_secret")
    with pytest.raises(Usage, match="signs that no token has"):
        Client(token="rha_secret\n")
