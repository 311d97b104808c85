"""Logs go up for as long as somebody waits for them, at his pace, and nothing is left of the reading afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nodeagent.bundle import Bundles, Record
from nodeagent.log_sender import LogSender
from nodeagent.logs.lines import MAX_LINE_BYTES
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import NotFound
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.times import to_timestamp
from roundhouse.v1.deployment_pb2 import EnvVar
from roundhouse.v1.log_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT

PATIENCE_S = 60.0


class Taker:
    """Serves `SendLogs`."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[wire.SendLogsRequest] = asyncio.Queue()
        self.running = 0
        self.ended = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self.refuses = False

    async def SendLogs(self, _: Any, context: Any) -> wire.SendLogsResponse:
        self.running += 1
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                await self.takes.wait()
                if self.refuses:
                    raise NotFound("nobody waits")
                self.messages.put_nowait(message)
            return wire.SendLogsResponse()
        finally:
            self.running -= 1
            self.ended.set()

    async def next(self) -> wire.SendLogsRequest:
        async with asyncio.timeout(PATIENCE_S):
            return await self.messages.get()

    async def lines(self, count: int) -> list[str]:
        """Returns the next lines."""
        texts: list[str] = []
        while len(texts) < count:
            texts += [each.text for each in (await self.next()).lines]
        return texts

    async def until_ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.ended.wait()


class Node:
    """A node with the directory of one replica, and its sender."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.bundles = Bundles(folder / "engines")
        self.bundles.open()
        self.sender = LogSender(self.bundles)
        self.taker = Taker()
        self.begin()

    def begin(self, **secrets: str) -> None:
        spec = engine_spec_pb2.EngineSpec(
            env=[EnvVar(name=name, value=value) for name, value in secrets.items()], secret_names=secrets
        )
        self.bundle = self.bundles.begin(engine_spec_pb2.EngineBundle(replica_uid="r-1", spec=spec), b"k", Record())

    def write(self, text: str) -> None:
        with self.bundle.stdout.open("a") as file:
            file.write(text)


@contextlib.asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Node]:
    it = Node(folder)
    service = Service(wire.DESCRIPTOR.services_by_name["AgentService"], it.taker)
    async with (
        serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving,
        open_channel(serving.address) as channel,
        it.sender.connected(channel),
    ):
        yield it


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with connected(tmp_path) as it:
        yield it


def request(**fields: Any) -> wire.LogRequest:
    return wire.LogRequest(**{"request_id": "q-1", "replica_uid": "r-1", **fields})


def open_logs(node: Node) -> list[str]:
    """Returns which files of the node this process has open."""
    links = []
    for each in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names, no paths
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{each}"))  # noqa: PTH115 - of what may be no file
    return [each for each in links if each.startswith(str(node.bundle.path))]


def sending() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("logs for")]


async def test_what_is_there_is_sent_and_the_last_message_says_so(node: Node) -> None:
    node.write("2026-11-26T12:00:00Z one\ntwo")
    node.bundle.stderr.write_text("aside\n")
    node.sender.send([request()])
    assert await node.taker.next() == wire.SendLogsRequest(request_id="q-1")
    lines = (await node.taker.next()).lines
    assert [(each.text, each.stream) for each in lines] == [
        ("aside", LOG_STREAM_STDERR),
        ("2026-11-26T12:00:00Z one", LOG_STREAM_STDOUT),
        ("two", LOG_STREAM_STDOUT),
    ]
    assert [each.HasField("time") for each in lines] == [False, True, False]
    assert (await node.taker.next()).is_last
    await node.taker.until_ended()


async def test_secrets_are_taken_out_before_anything_is_sent(node: Node) -> None:
    node.begin(TOKEN="hunter2")
    node.write("token is hunter2, yes hunter2\nnothing here\n")
    node.sender.send([request()])
    await node.taker.next()
    texts = [each.text for each in (await node.taker.next()).lines]
    assert texts == ["token is [secret], yes [secret]", "nothing here"]
    await node.taker.until_ended()


async def test_a_line_that_is_cut_in_a_secret_shows_no_beginning_of_it(node: Node) -> None:
    node.begin(TOKEN="hunter2")
    node.write("x" * (MAX_LINE_BYTES - 5) + "hunter2\n")
    node.sender.send([request()])
    await node.taker.next()
    [line] = (await node.taker.next()).lines
    assert line.text.endswith("xx[secret]…")
    await node.taker.until_ended()


async def test_secrets_are_taken_out_of_what_was_read_of_a_replica_that_has_left_since(node: Node) -> None:
    node.begin(TOKEN="hunter2")
    node.write("hunter2 is the token\n" * 6000)
    steps = node.sender.steps(request())
    texts = [each.line.text for each in next(steps)]
    node.bundles.remove(node.bundle)
    texts += [each.line.text for batch in steps for each in batch]
    assert texts
    assert all(each.startswith("[secret]") for each in texts)


async def test_what_was_answered_is_not_answered_again_while_it_is_still_asked(node: Node) -> None:
    node.write("one\n")
    node.sender.send([request()])
    await node.taker.until_ended()
    node.taker.ended.clear()
    node.sender.send([request()])
    node.sender.send([request(), request(request_id="q-2")])
    await node.taker.until_ended()
    ids = [(await node.taker.next()).request_id for _ in range(6)]
    assert ids == ["q-1", "", "", "q-2", "", ""]
    assert node.taker.messages.empty()


async def test_a_reader_follows_the_engine_through_its_lives(node: Node) -> None:
    node.write("one\n")
    node.sender.send([request(follow=True)])
    assert await node.taker.lines(1) == ["one"]
    node.write("two\n")
    assert await node.taker.lines(1) == ["two"]
    node.begin()
    node.write("three\n")
    assert await node.taker.lines(1) == ["three"]


async def test_a_replica_that_has_not_started_is_waited_for_and_one_that_leaves_ends_the_reading(node: Node) -> None:
    node.bundles.remove(node.bundle)
    node.sender.send([request(follow=True)])
    await node.taker.next()
    node.begin()
    node.write("one\n")
    assert await node.taker.lines(1) == ["one"]
    node.bundles.remove(node.bundle)
    assert (await node.taker.next()).is_last


async def test_a_replica_that_has_not_started_has_nothing_to_send(node: Node) -> None:
    node.bundles.remove(node.bundle)
    node.sender.send([request(), request(request_id="q-2", replica_uid="../engines/r-1")])
    said = [await node.taker.next() for _ in range(4)]
    assert sum(each.is_last for each in said) == 2
    assert not any(each.lines or each.refusal for each in said)


async def test_that_there_was_no_life_before_is_said_with_the_cure(node: Node) -> None:
    node.write("one\n")
    node.sender.send([request(previous_life=True)])
    await node.taker.next()
    refused = await node.taker.next()
    assert "leave previous_life out" in refused.refusal
    assert refused.is_last
    node.begin()
    node.sender.send([request(request_id="q-2", previous_life=True)])
    assert await node.taker.lines(1) == ["one"]


async def test_only_what_is_asked_for_is_sent(node: Node) -> None:
    node.write("1970-01-01T00:00:10Z old\n1970-01-01T00:00:20Z new\n1970-01-01T00:00:30Z newest\n")
    node.bundle.stderr.write_text("aside\n")
    since, only = to_timestamp(15.0), LOG_STREAM_STDOUT
    node.sender.send([request(since_time=since, stream=only)])
    assert [each.split()[1] for each in await node.taker.lines(2)] == ["new", "newest"]
    node.sender.send([request(request_id="q-2", tail_line_count=1, stream=only)])
    assert [each.split()[1] for each in await node.taker.lines(1)] == ["newest"]
    node.sender.send([request(request_id="q-3", stream=LOG_STREAM_STDERR)])
    assert await node.taker.lines(1) == ["aside"]


async def test_logs_that_cannot_be_read_say_why(node: Node) -> None:
    node.bundle.stdout.symlink_to(node.bundle.stdout)
    node.sender.send([request()])
    await node.taker.next()
    assert "stdout.log" in (await node.taker.next()).refusal


async def test_once_nobody_waits_no_call_task_or_file_is_left(node: Node) -> None:
    node.write("one\n")
    node.sender.send([request(follow=True), request(request_id="q-2", follow=True)])
    await node.taker.lines(2)
    node.sender.send([])
    async with asyncio.timeout(PATIENCE_S):
        while node.taker.running:
            node.taker.ended.clear()
            await node.taker.ended.wait()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("logs for")))
    assert (sending(), open_logs(node)) == ([], [])


async def test_a_reader_that_does_not_read_holds_up_its_own_reading_alone(node: Node, tmp_path: Path) -> None:
    node.taker.takes.clear()
    node.write(("x" * 1023 + "\n") * 16 * 1024)  # 16 MiB
    node.sender.send([request()])
    steps = sending()
    async with connected(tmp_path / "other") as other:
        other.write("one\n")
        other.sender.send([request(request_id="q-2")])
        assert await other.taker.lines(1) == ["one"]
    assert sending() == steps
    node.taker.takes.set()
    assert len(await node.taker.lines(16 * 1024)) == 16 * 1024


async def test_a_call_that_is_refused_ends_quietly_and_others_go_on(node: Node) -> None:
    node.write("one\n")
    node.taker.refuses = True
    node.sender.send([request(follow=True)])
    await node.taker.until_ended()
    node.taker.refuses = False
    node.sender.send([request(follow=True), request(request_id="q-2")])
    assert await node.taker.lines(1) == ["one"]
