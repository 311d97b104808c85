"""A channel of ours, seen from the other side of a bad line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from roundhouse.kit.channel import open_channel
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.tasks import Background

LOOPBACK = Listen("127.0.0.1", 0)
FIRST_ANSWER_S = 0.5  # what a busy machine takes; the delay is the subject here, nothing is waited for


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Passes on what comes, the first of it only after `delay_s`."""
    await asyncio.sleep(delay_s)
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


@contextlib.asynccontextmanager
async def slow_line(port: int) -> AsyncIterator[str]:
    """Gives an address that accepts at once and leads to `port`, whose first answer is late."""

    async with Background() as background:

        async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            background.start(pump(reader, far_writer, 0), "there")
            background.start(pump(far_reader, writer, FIRST_ANSWER_S), "back")

        async with await asyncio.start_server(join, "127.0.0.1", 0) as server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def test_a_server_that_is_slow_to_shake_hands_is_reached_by_the_first_call() -> None:
    async with (
        serve(LOOPBACK, [], grace_s=0) as serving,
        slow_line(serving.port) as address,
        open_channel(address) as channel,
    ):
        answer = await health(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_that_was_not_there_is_reached_within_seconds_of_its_start() -> None:
    async with serve(LOOPBACK, [], grace_s=0) as serving:
        address = serving.address
    async with open_channel(address) as channel:
        with pytest.raises(grpc.RpcError, match="refused"):
            await health(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        async with serve(Listen.parse(address), [], grace_s=0):
            answer = await health(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=8)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
