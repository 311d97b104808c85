"""Bytes that are no request, as a broken or hostile client sends them, over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import InvalidArgument
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import node_pb2, node_service_pb2

NO_TAG, CUT_OFF, NO_TEXT = b"\xff\xff\xff", b"\x0a\x7f", b"\x0a\x01\xff"
NODES, AGENTS = "roundhouse.v1.NodeService", "roundhouse.internal.v1.AgentService"
REFLECTION = "grpc.reflection.{}.ServerReflection/ServerReflectionInfo"
REFLECTED = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()


class Nodes:
    """Tells the name that it was asked for."""

    async def GetNode(self, request: Any, context: Any) -> Any:
        return node_pb2.Node(name=request.name)

    async def WatchNodes(self, request: Any, context: Any) -> None:
        await context.write(node_service_pb2.WatchNodesResponse())


class Reads:
    """Answers each request; takes them from the context."""

    async def Join(self, _: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await answer(request, context)


class Iterates:
    """Answers each request; takes them from the stream."""

    async def Join(self, requests: Any, context: Any) -> None:
        async for request in requests:
            await answer(request, context)


async def answer(request: agent_service_pb2.JoinRequest, context: Any) -> None:
    await context.write(agent_service_pb2.JoinResponse(protocol_version=request.protocol_version))


@dataclass(frozen=True, slots=True)
class Peer:
    """Sends bytes as they are."""

    channel: grpc.aio.Channel

    async def ask(self, method: str, *requests: bytes) -> list[bytes]:
        """Sends requests, each behind the answer to the one before, and returns the answers.

        To whoever serves it, a stream of one request is a call with one.
        """
        channel: Any = self.channel
        answers = []
        async with cancelling(channel.stream_stream(f"/{method}")()) as call:
            for each in requests:
                await call.write(each)
                answers.append(await call.read())
                assert answers[-1] is not grpc.aio.EOF
        return answers


@pytest_asyncio.fixture(params=[Reads, Iterates], ids=["reads", "iterates"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    services = [
        Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], Nodes()),
        Service(agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"], request.param()),
    ]
    async with serve(Listen("127.0.0.1", 0), services, grace_s=0) as serving, open_channel(serving.address) as channel:
        yield Peer(channel)


GOOD = agent_service_pb2.JoinRequest(protocol_version=7).SerializeToString()


@pytest.mark.parametrize("garbage", [NO_TAG, CUT_OFF], ids=["no tag", "cut off"])
@pytest.mark.parametrize(
    ("method", "before", "kind"),
    [
        pytest.param(f"{NODES}/GetNode", (), "roundhouse.v1.GetNodeRequest", id="one request"),
        pytest.param(f"{NODES}/WatchNodes", (), "roundhouse.v1.WatchNodesRequest", id="one request, many answers"),
        pytest.param(f"{AGENTS}/Join", (), "roundhouse.internal.v1.JoinRequest", id="the first of many"),
        pytest.param(f"{AGENTS}/Join", (GOOD,), "roundhouse.internal.v1.JoinRequest", id="a later one of many"),
        pytest.param("grpc.health.v1.Health/Check", (), "grpc.health.v1.HealthCheckRequest", id="health"),
        *(
            pytest.param(
                REFLECTION.format(version),
                before,
                "grpc.reflection.v1alpha.ServerReflectionRequest",
                id=f"reflection {version}, {which}",
            )
            for version in ("v1", "v1alpha")
            for which, before in (("the first", ()), ("a later one", (REFLECTED,)))
        ),
    ],
)
async def test_a_request_that_cannot_be_read_is_an_invalid_argument_with_reason_and_cure(
    peer: Peer, method: str, before: tuple[bytes, ...], kind: str, garbage: bytes
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await peer.ask(method, *before, garbage)
    ours = error_of(refusal.value)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (type(ours), reason_name(ours.own_reason)) == (InvalidArgument, "FIELD_INVALID")
    assert str(ours) == f"the bytes of the request are no {kind}: encode it by the protos of this version"


async def test_a_text_that_is_no_utf_8_is_an_invalid_argument_too(peer: Peer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await peer.ask(f"{NODES}/GetNode", NO_TEXT)
    assert type(error_of(refusal.value)) is InvalidArgument


async def test_whoever_sends_no_garbage_is_answered_beside_it(peer: Peer) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.ask(f"{AGENTS}/Join", GOOD, NO_TAG)
    name = node_service_pb2.GetNodeRequest(name="nodes/a").SerializeToString()
    [node] = await peer.ask(f"{NODES}/GetNode", name)
    assert node_pb2.Node.FromString(node).name == "nodes/a"
    answers = await peer.ask(f"{AGENTS}/Join", GOOD, GOOD)
    assert [agent_service_pb2.JoinResponse.FromString(each).protocol_version for each in answers] == [7, 7]
    [health] = await peer.ask("grpc.health.v1.Health/Check", b"")
    assert health_pb2.HealthCheckResponse.FromString(health).status == health_pb2.HealthCheckResponse.SERVING
