"""Requests that go to an engine past the control plane, as a gateway elsewhere sends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_spec_pb2, hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc

TOKENS = 400
TIMEOUT_S = 120.0


class Followed:
    """Counts the streams of engines that were read from the first token to the last, one after the other."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.is_over = asyncio.Event()

    async def read(self, bundle: Path) -> None:
        """Reads streams of the engine of a directory until it is over; raises if one does not come whole."""
        self.counts[bundle.name] = 0
        while not self.is_over.is_set():
            await whole_stream(bundle)
            self.counts[bundle.name] += 1


@contextlib.asynccontextmanager
async def followed(bundles: Collection[Path]) -> AsyncIterator[Followed]:
    """Has streams of these engines going for the whole block; raises if one breaks."""
    it = Followed()
    async with asyncio.TaskGroup() as group:
        for each in bundles:
            group.create_task(it.read(each), name=f"streams of {each.name}")
        yield it
        it.is_over.set()
    assert all(it.counts.values()), it.counts


async def whole_stream(bundle: Path) -> None:
    """Reads one stream of the engine of a directory; raises unless each position comes once and in order."""
    spec = json_format.Parse((bundle / "spec.json").read_text(), engine_spec_pb2.EngineBundle())
    ready = json_format.Parse((bundle / "ready.json").read_text(), engine_spec_pb2.EngineReady())
    hop = hop_pb2.Hop(
        engine_uuid=spec.engine_uuid, engine_key=(bundle / "key").read_bytes(), principal="local", keeper="a test"
    )
    request = inference_service_pb2.GenerateRequest(
        deployment=spec.spec.deployment,
        prompt=[{"text": "Once upon a time"}],
        sampling={"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True},
    )
    position = 0
    async with open_channel(ready.address) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        call = stub.Generate(request, metadata=((HOP_KEY, hop.SerializeToString()),), timeout=TIMEOUT_S)
        async with cancelling(call):
            async for response in call:
                for event in response.events:
                    if event.WhichOneof("event") == "delta":
                        assert event.delta.first_position == position
                        position += len(event.delta.token_ids)
    assert position == TOKENS
