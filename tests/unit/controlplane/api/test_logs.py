"""StreamLogs: what an agent reads reaches the client that waits for it, at his pace, and ends with him."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.api import logs
from controlplane.fleet.logs import READERS
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.internal.v1 import agent_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import (
    AlreadyExists,
    InvalidArgument,
    NoCapacity,
    NotFound,
    NotReady,
    RoundhouseError,
    Unreachable,
)
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.log_pb2 import LOG_STREAM_STDERR, LogLine
from tests.support.plane import PATIENCE_S, Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent

CHAT_0 = "deployments/chat/replicas/0"


class Scene:
    """A node with one replica, whose logs the test sends."""

    def __init__(self, plane: Plane, agent: ScriptedAgent, stub: Any) -> None:
        self.plane, self.agent, self.stub = plane, agent, stub

    def stream(self, name: str = CHAT_0, **fields: Any) -> Any:
        return self.plane.deployments.StreamLogs(pb.StreamLogsRequest(name=name, **fields))

    async def asked(self, count: int = 1) -> list[wire.LogRequest]:
        """Waits until so many logs are asked for."""
        async with asyncio.timeout(PATIENCE_S):
            return list((await self.agent.assigned(lambda each: len(each.log_requests) == count)).log_requests)

    @contextlib.asynccontextmanager
    async def answering(self, request_id: str) -> AsyncIterator[Any]:
        """A call of the agent that answers a request."""
        async with cancelling(self.stub.SendLogs()) as call:
            await call.write(wire.SendLogsRequest(request_id=request_id))
            yield call


@pytest.fixture
async def scene(plane: Plane) -> AsyncIterator[Scene]:
    agent = ScriptedAgent("one")
    agent.capabilities = ["logs"]
    async with agent.joined(plane.address), open_channel(plane.address) as channel:
        await plane.create()
        await plane.until_replicas(lambda all_: bool(all_) and all(each.node for each in all_.values()))
        yield Scene(plane, agent, agent_service_pb2_grpc.AgentServiceStub(channel))


async def failed(stream: Any) -> RoundhouseError:
    async with asyncio.timeout(PATIENCE_S), cancelling(stream):
        return await refused(stream.read())


async def texts(stream: Any, count: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found += [each.text for each in (await stream.read()).lines]
    return found


def lines(*words: str) -> wire.SendLogsRequest:
    return wire.SendLogsRequest(lines=[LogLine(text=each) for each in words])


async def test_what_is_asked_reaches_the_agent_and_what_it_reads_the_client(scene: Scene) -> None:
    since = to_timestamp(5.0)
    async with cancelling(scene.stream(tail_line_count=3, follow=True, since_time=since, stream=2)) as stream:
        [asked] = await scene.asked()
        [uid] = scene.agent.engines
        wanted = wire.LogRequest(replica_uid=uid, tail_line_count=3, follow=True, since_time=since)
        wanted.stream, wanted.request_id = LOG_STREAM_STDERR, asked.request_id
        assert asked == wanted
        async with scene.answering(asked.request_id) as call:
            await call.write(lines("one", "two"))
            assert await texts(stream, 2) == ["one", "two"]
            await call.write(wire.SendLogsRequest(is_last=True))
            await call.done_writing()
            assert await stream.read() is grpc.aio.EOF
            await call
    await scene.asked(0)


async def test_nothing_that_was_not_asked_for_is_in_the_request(scene: Scene) -> None:
    async with cancelling(scene.stream(previous_life=True)):
        [asked] = await scene.asked()
        wanted = wire.LogRequest(replica_uid=asked.replica_uid, request_id=asked.request_id, previous_life=True)
        assert asked == wanted


async def test_a_client_that_leaves_takes_the_wish_along_and_the_call_of_the_agent_ends(scene: Scene) -> None:
    async with cancelling(scene.stream(follow=True)) as stream:
        [asked] = await scene.asked()
        async with scene.answering(asked.request_id) as call:
            await call.write(lines("one"))
            assert await texts(stream, 1) == ["one"]
            stream.cancel()
            await scene.asked(0)

            with contextlib.suppress(asyncio.InvalidStateError, grpc.RpcError):  # of a call that has ended
                while True:
                    await call.write(lines("more"))
            assert isinstance(await refused(call), NotFound)


async def test_a_client_that_does_not_read_holds_the_agent_up(scene: Scene) -> None:
    async with cancelling(scene.stream(follow=True)):
        [asked] = await scene.asked()
        block = lines(*("x" * 1000 for _ in range(60)))
        async with scene.answering(asked.request_id) as call:
            written = 0
            with contextlib.suppress(TimeoutError):
                while written < 3000:  # 180 MB
                    async with asyncio.timeout(2.0):  # cancels the call with the write; it is not used any more
                        await call.write(block)
                    written += 1
            assert 0 < written < 1000  # what two streams of HTTP/2 take, and two messages


async def test_two_clients_get_the_logs_each_for_himself(scene: Scene) -> None:
    async with cancelling(scene.stream(follow=True)) as one, cancelling(scene.stream(follow=True)) as two:
        first, second = await scene.asked(2)
        async with scene.answering(first.request_id) as call, scene.answering(second.request_id) as other:
            await call.write(lines("of one"))
            await other.write(lines("of two"))
            assert {*(await texts(one, 1)), *(await texts(two, 1))} == {"of one", "of two"}
            one.cancel()
            await scene.asked(1)


async def test_that_there_is_nothing_to_send_is_an_error_with_the_words_of_the_agent(scene: Scene) -> None:
    async with cancelling(scene.stream(previous_life=True)) as stream:
        [asked] = await scene.asked()
        async with scene.answering(asked.request_id) as call:
            await call.write(wire.SendLogsRequest(refusal="there was no life before: leave it out", is_last=True))
            error = await failed(stream)
            assert isinstance(error, NotReady)
            assert reason_of(error) == "LOGS_UNAVAILABLE"
            assert "there was no life before: leave it out" in error.message


async def test_an_agent_that_breaks_off_is_no_end_of_the_logs(scene: Scene) -> None:
    async with cancelling(scene.stream()) as stream:
        [asked] = await scene.asked()
        async with scene.answering(asked.request_id) as call:
            await call.write(lines("one"))
            assert await texts(stream, 1) == ["one"]
            await call.done_writing()  # without a last message
            error = await failed(stream)
            assert isinstance(error, Unreachable)
            assert "broke off" in error.message


@pytest.mark.parametrize("follow", [True, False])
async def test_a_replica_that_leaves_its_node_ends_the_stream_and_what_is_missing_is_an_error(
    scene: Scene, follow: bool
) -> None:
    async with cancelling(scene.stream(follow=follow)) as stream:
        [asked] = await scene.asked()
        async with scene.answering(asked.request_id) as call:
            await call.write(lines("one"))
            assert await texts(stream, 1) == ["one"]
            await scene.plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name="deployments/chat"))
            async with asyncio.timeout(PATIENCE_S):
                if follow:
                    assert await stream.read() is grpc.aio.EOF
                else:
                    with pytest.raises(grpc.aio.AioRpcError, match="the logs broke off"):
                        await stream.read()


async def test_a_node_that_falls_silent_ends_the_stream_and_is_not_asked_again(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state", lease_s=0.5) as plane:
        agent = ScriptedAgent("one")
        agent.capabilities, agent.period_s = ["logs"], 0.1
        async with agent.joined(plane.address):
            await plane.create()
            await plane.until_replicas(lambda all_: bool(all_) and all(each.node for each in all_.values()))
            stream = plane.deployments.StreamLogs(pb.StreamLogsRequest(name=CHAT_0, follow=True))
            await agent.assigned(lambda each: len(each.log_requests) == 1)
        for call in (stream, plane.deployments.StreamLogs(pb.StreamLogsRequest(name=CHAT_0))):
            error = await failed(call)
            assert isinstance(error, Unreachable)
            assert "check its agent" in error.message


async def test_an_agent_that_does_not_answer_is_not_waited_for_without_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "ANSWER_S", 0.05)
    error = await failed(scene.stream())
    assert isinstance(error, Unreachable)
    assert "has not answered" in error.message
    await scene.asked(0)


async def test_an_agent_without_the_ability_is_named_with_the_cure(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create()
        await plane.until_replicas(lambda all_: bool(all_) and all(each.node for each in all_.values()))
        error = await failed(plane.deployments.StreamLogs(pb.StreamLogsRequest(name=CHAT_0)))
        assert isinstance(error, NotReady)
        assert error.message.endswith('the agent of node "one" cannot send any: upgrade it')


async def test_a_replica_without_a_place_has_no_logs(plane: Plane) -> None:
    await plane.create(allow_pending=True)
    error = await failed(plane.deployments.StreamLogs(pb.StreamLogsRequest(name=CHAT_0)))
    assert isinstance(error, NotReady)
    assert reason_of(error) == "LOGS_UNAVAILABLE"
    assert "it is PENDING" in error.message


UNKNOWN = {
    "deployment": ("deployments/other/replicas/0", "DEPLOYMENT_NOT_FOUND"),
    "replica": ("deployments/chat/replicas/7", "REPLICA_NOT_FOUND"),
    "no index": ("deployments/chat/replicas/x", "REPLICA_NOT_FOUND"),
}


@pytest.mark.parametrize(("name", "reason"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_is_unknown_is_not_found(scene: Scene, name: str, reason: str) -> None:
    error = await failed(scene.stream(name))
    assert isinstance(error, NotFound)
    assert reason_of(error) == reason


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "chat-0"}, "name"),
    "tail": ({"tail_line_count": -1}, "tail_line_count"),
    "long tail": ({"tail_line_count": 1_000_001}, "tail_line_count"),
    "follow of what is over": ({"follow": True, "previous_life": True}, "follow"),
    "stream": ({"stream": 9}, "stream"),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD)
async def test_a_bad_request_names_the_field(scene: Scene, fields: dict[str, Any], field: str) -> None:
    error = await failed(scene.stream(**fields))
    assert isinstance(error, InvalidArgument)
    assert [each.field for each in error.fields] == [field]


async def test_one_node_has_so_many_readers_and_no_more(scene: Scene) -> None:
    streams = [scene.stream(follow=True) for _ in range(READERS)]
    try:
        await scene.asked(READERS)
        error = await failed(scene.stream(follow=True))
        assert isinstance(error, NoCapacity)
        assert reason_of(error) == "TOO_MANY_LOG_READERS"
    finally:
        for each in streams:
            each.cancel()
    await scene.asked(0)


async def test_what_nobody_asked_for_is_refused(scene: Scene) -> None:
    async def send(*messages: wire.SendLogsRequest) -> Any:
        async with cancelling(scene.stub.SendLogs()) as call:
            for each in messages:
                await call.write(each)
            await call.done_writing()
            return await call

    assert isinstance(await refused(send()), InvalidArgument)
    assert isinstance(await refused(send(lines("one"))), InvalidArgument)
    assert isinstance(await refused(send(wire.SendLogsRequest(request_id="made up"))), NotFound)
    async with cancelling(scene.stream(follow=True)):
        [asked] = await scene.asked()
        async with scene.answering(asked.request_id) as call:
            await call.write(lines("one"))
            assert isinstance(await refused(send(wire.SendLogsRequest(request_id=asked.request_id))), AlreadyExists)
