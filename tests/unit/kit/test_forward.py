"""Services passed on to another server: the caller sees what it would see there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from roundhouse.internal.v1 import agent_service_pb2, agent_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import FieldViolation, InvalidArgument, NotFound, Resource, Unreachable
from roundhouse.kit.forward import Forwarded
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import errors_pb2, node_pb2, node_service_pb2, node_service_pb2_grpc

NODES = node_service_pb2.DESCRIPTOR.services_by_name["NodeService"]
AGENTS = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
LOOPBACK = Listen("127.0.0.1", 0)
ROUNDING_S = 0.1  # a time of 10 to 100 s travels in tenths of a second, rounded up
MANY = 500


@dataclass
class Nodes:
    """The server behind: answers by what it is asked for, and remembers what reached it."""

    metadata: list[Any] = field(default_factory=list)
    remaining_s: list[float | None] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def GetNode(self, request: Any, context: Any) -> Any:
        self.arrived.set()
        self.metadata.append(context.invocation_metadata())
        self.remaining_s.append(context.time_remaining())
        if request.name == "nodes/gone":
            raise NotFound(
                "node “gone” does not exist: check the name",
                reason=errors_pb2.ERROR_REASON_NODE_NOT_FOUND,
                resource=Resource("roundhouse.v1.Node", request.name),
                metadata={"known": "a, b"},
            )
        if request.name == "nodes/busy":
            raise Unreachable("busy: try again", reason=errors_pb2.ERROR_REASON_STORE_UNKNOWN, retry_after_s=3)
        if request.name == "":
            raise InvalidArgument("name: is empty", fields=[FieldViolation("name", "is empty: name one")])
        if request.name == "nodes/slow":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        await context.send_initial_metadata([("roundhouse-first", "1")])
        context.set_trailing_metadata([("roundhouse-last-bin", b"\x00\x01")])
        return node_service_pb2.GetNodeResponse(node=node_pb2.Node(name=request.name))

    async def WatchNodes(self, request: Any, context: Any) -> None:
        try:
            for number in range(MANY):
                node = node_pb2.Node(name=f"nodes/{number}")
                await context.write(
                    node_service_pb2.WatchNodesResponse(events=[node_service_pb2.NodeEvent(changed=node)])
                )
            await asyncio.Event().wait()
        finally:
            self.left.set()


class Agents:
    """Answers each report with its version, and ends when there are no more."""

    async def Join(self, _: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(agent_service_pb2.JoinResponse(protocol_version=request.protocol_version))


@dataclass(frozen=True)
class House:
    """A server that passes on, the one behind it, and a client of each."""

    behind: Nodes
    nodes: Any
    direct: Any
    agents: Any
    stack: contextlib.AsyncExitStack  # the server behind: close it, and it is away


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[House]:
    behind = Nodes()
    async with contextlib.AsyncExitStack() as server, contextlib.AsyncExitStack() as stack:
        origin = await server.enter_async_context(
            serve(LOOPBACK, [Service(NODES, behind), Service(AGENTS, Agents())], grace_s=0)
        )
        channel = await stack.enter_async_context(open_channel(origin.address))
        passed = [Forwarded(each, channel, lambda: Unreachable("it is away: start it")) for each in (NODES, AGENTS)]
        front = await stack.enter_async_context(serve(LOOPBACK, passed, grace_s=0))
        client = await stack.enter_async_context(open_channel(front.address))
        yield House(
            behind,
            node_service_pb2_grpc.NodeServiceStub(client),
            node_service_pb2_grpc.NodeServiceStub(channel),
            agent_service_pb2_grpc.AgentServiceStub(client),
            server,
        )


def get(name: str) -> node_service_pb2.GetNodeRequest:
    return node_service_pb2.GetNodeRequest(name=name)


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_one_answer_passes_with_metadata_of_both_ways_and_the_deadline() -> None:
    async with house() as it:
        call = it.nodes.GetNode(get("nodes/a"), timeout=20, metadata=[("authorization", "Bearer x"), ("a-bin", b"\0")])
        assert (await call).node.name == "nodes/a"
        assert metadata_value(await call.initial_metadata(), "roundhouse-first") == "1"
        assert metadata_value(await call.trailing_metadata(), "roundhouse-last-bin") == b"\x00\x01"
        [metadata], [remaining_s] = it.behind.metadata, it.behind.remaining_s
        assert metadata_value(metadata, "authorization") == "Bearer x"
        assert metadata_value(metadata, "a-bin") == b"\0"
        assert remaining_s is not None
        assert 0 < remaining_s <= 20 + 2 * ROUNDING_S


async def test_a_call_without_a_deadline_gets_none_on_its_way() -> None:
    async with house() as it:
        await it.nodes.GetNode(get("nodes/a"))
        assert it.behind.remaining_s == [None]


async def test_all_of_a_stream_passes_in_order_and_leaving_it_is_heard() -> None:
    async with house() as it:
        async with cancelling(it.nodes.WatchNodes(node_service_pb2.WatchNodesRequest())) as call:
            names = [event.changed.name for _ in range(MANY) for event in (await call.read()).events]
            assert names == [f"nodes/{number}" for number in range(MANY)]
        await asyncio.wait_for(it.behind.left.wait(), 20)


async def test_requests_and_answers_pass_while_both_go_on() -> None:
    async with house() as it, cancelling(it.agents.Join()) as call:
        for version in (1, 2, 3):
            await call.write(agent_service_pb2.JoinRequest(protocol_version=version))
            assert (await call.read()).protocol_version == version
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("name", ["nodes/gone", "nodes/busy", ""])
async def test_an_error_is_the_same_with_all_its_details(name: str) -> None:
    async with house() as it:
        told = []
        for stub in (it.direct, it.nodes):
            with pytest.raises(grpc.RpcError) as refusal:
                await stub.GetNode(get(name))
            error = error_of(refusal.value)
            told.append((refusal.value.code(), refusal.value.details(), type(error), vars(error)))
        assert told[0] == told[1]


async def test_leaving_a_call_ends_it_behind() -> None:
    async with house() as it:
        call = it.nodes.GetNode(get("nodes/slow"))
        waiting = asyncio.ensure_future(call)
        await asyncio.wait_for(it.behind.arrived.wait(), 20)
        call.cancel()
        await asyncio.wait_for(it.behind.left.wait(), 20)
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_deadline_that_passes_ends_it_here_and_behind() -> None:
    async with house() as it:
        with pytest.raises(grpc.RpcError) as refusal:
            await it.nodes.GetNode(get("nodes/slow"), timeout=0.3)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(it.behind.left.wait(), 20)


async def test_while_the_server_behind_is_away_callers_are_told_so_with_a_cure() -> None:
    async with house() as it:
        watch = it.nodes.WatchNodes(node_service_pb2.WatchNodesRequest())
        await watch.read()
        await it.stack.aclose()
        with pytest.raises(grpc.RpcError) as cut:
            await read_all(watch)
        with pytest.raises(grpc.RpcError) as refused:
            await it.nodes.GetNode(get("nodes/a"))
        for each in (cut.value, refused.value):
            error = error_of(each)
            assert (each.code(), error.message) == (grpc.StatusCode.UNAVAILABLE, "it is away: start it")
            assert reason_name(error.own_reason) == "INTERRUPTED"
