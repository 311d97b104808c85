"""Several gateways behind one port, and many clients, of which some lose theirs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from benchmarks.support.token_reader import METHOD, request
from benchmarks.support.token_source import Feed, Source
from roundhouse.internal.v1 import fleet_service_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import inference_service_pb2
from tests.support.cluster import eventually
from tests.support.gateway_group import Group, gateway_group

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 24  # over two gateways: that one of them gets none happens once in millions of times
RATE, LONG = 50.0, 100_000
PATIENCE_S = 60.0


@contextlib.asynccontextmanager
async def source() -> AsyncIterator[str]:
    """An engine without a model, which tells gateways where it is."""
    feed = Feed()
    services = [
        Service(inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"], Source()),
        Service(fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"], feed),
    ]
    async with serve(Listen("127.0.0.1", 0), services, grace_s=0.0) as serving:
        feed.address = serving.address
        yield serving.address


class Client:
    """Reads one stream after another, each over the same channel; says how each ended."""

    def __init__(self, address: str) -> None:
        self.ends: list[grpc.StatusCode] = []
        self.stream_count = 0
        self.position = 0
        self._channel = open_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])

    async def run(self) -> None:
        async with self._channel as channel:
            call: Any = channel.unary_stream(METHOD)
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self._read(call(request(f"run-{id(self)}-{self.stream_count}", 1, RATE, LONG)))
                await asyncio.sleep(0.1)

    async def _read(self, call: Any) -> None:
        position = 0
        async with cancelling(call):
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    for event in inference_service_pb2.GenerateResponse.FromString(message).events:
                        if event.HasField("started"):
                            self.stream_count += 1
                        if event.HasField("delta"):
                            assert event.delta.first_position == position
                            position += len(event.delta.token_ids)
                            self.position = position
            except grpc.aio.AioRpcError as error:
                self.ends.append(error.code())
                raise


@contextlib.asynccontextmanager
async def streaming(group: Group) -> AsyncIterator[Sequence[Client]]:
    """Runs clients for the block, from when all of them stream, each over a connection of its own."""
    clients = [Client(group.address) for _ in range(CLIENTS)]
    tasks = [asyncio.create_task(each.run()) for each in clients]
    try:
        await eventually(lambda: all(each.position > 0 for each in clients), "all stream")
        yield clients
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in ends if not isinstance(each, asyncio.CancelledError)] == []


async def test_a_gateway_that_is_killed_takes_its_own_streams_along_and_their_clients_find_another(
    tmp_path: Path,
) -> None:
    async with source() as address, gateway_group(tmp_path, address, 2) as group:
        await group.until_listening(2)
        async with streaming(group) as clients:
            counts = group.connection_counts()
            assert sum(counts.values()) == CLIENTS
            assert all(count > 0 for count in counts.values()), counts
            killed, left = sorted(counts, key=lambda pid: counts[pid])
            psutil.Process(killed).kill()

            lost = counts[killed]
            await eventually(lambda: sum(bool(each.ends) for each in clients) == lost, "those of one gateway are lost")
            await eventually(
                lambda: all(each.stream_count == 1 + bool(each.ends) for each in clients), "all stream again"
            )
            assert {code for each in clients for code in each.ends} == {grpc.StatusCode.UNAVAILABLE}
            assert sum(len(each.ends) for each in clients) == lost  # the others noticed nothing

            # It is started again, under the same parent, and new clients come to it too.
            assert left in await group.until_listening(2, but=killed)
            async with streaming(group):
                after = group.connection_counts()
                assert len(after) == 2
                assert all(count > 0 for count in after.values()), after
