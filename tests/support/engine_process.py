"""An engine as the process that it is: started from a bundle, spoken to over its port."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from engines.config import KEY_FILE, READY_FILE, SPEC_FILE
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2, engine_service_pb2_grpc, engine_spec_pb2, hop_pb2
from roundhouse.kit.channel import cancelling
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc
from tests.support.cluster import eventually

KEY = b"0123456789abcdef0123456789abcdef"
UUID = "0b7e0000-0000-4000-8000-000000000001"
METADATA = ((HOP_KEY, hop_pb2.Hop(engine_uuid=UUID, engine_key=KEY, principal="local").SerializeToString()),)
PATIENCE_S = 90.0  # two cores, shared
PROMPT = "What is 2 + 2?"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine process and its bundle."""

    process: subprocess.Popen[bytes]
    bundle: Path

    async def address(self) -> str:
        return (await eventually(self.ready, "the engine listens")).address

    def ready(self) -> engine_spec_pb2.EngineReady:
        assert self.process.poll() is None, self.stderr()
        return json_format.Parse((self.bundle / READY_FILE).read_text(), engine_spec_pb2.EngineReady())

    async def exit_status(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), PATIENCE_S)

    def stderr(self) -> str:
        return self.bundle.with_suffix(".stderr").read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def start(bundle: Path, *options: str, environ: Mapping[str, str] | None = None, **fields: Any) -> Engine:
    """Starts an engine on the demo model, unless `fields` of the bundle say otherwise."""
    bundle.mkdir(parents=True)
    spec = engine_spec_pb2.EngineBundle(
        engine_uuid=UUID,
        replica="deployments/chat/replicas/0",
        replica_uid="r-1",
        device="cpu",
        listen_host="127.0.0.1",
        spec={"deployment": "chat", "engine": "torch", "model": {"builtin": "demo"}},
    )
    spec.spec.computed.kv_cache_memory_bytes = 64 << 20
    spec.MergeFrom(engine_spec_pb2.EngineBundle(**fields))
    (bundle / SPEC_FILE).write_text(json_format.MessageToJson(spec))
    (bundle / KEY_FILE).write_bytes(KEY)
    out, err = bundle.with_suffix(".stdout"), bundle.with_suffix(".stderr")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = [sys.executable, "-m", "engines", "--bundle", str(bundle), *options]
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, start_new_session=True, env={**os.environ, **(environ or {})}
        )
        return Engine(process, bundle)


async def serving(channel: grpc.aio.Channel, patience_s: float = PATIENCE_S) -> list[str]:
    """Waits until the engine serves, and returns the stages that it went through."""
    stub: Any = engine_service_pb2_grpc.EngineServiceStub(channel)
    call = stub.Watch(engine_service_pb2.WatchRequest(), metadata=METADATA, timeout=patience_s)
    stages: list[str] = []
    async with cancelling(call):
        async for response in call:
            for status in response.statuses:
                stages.append(status.message)
                if status.state == engine_service_pb2.ENGINE_STATE_SERVING:
                    return stages
    raise AssertionError("the engine stopped before it served")


def generate(channel: grpc.aio.Channel, request_id: str = "", *, prompt: Any = None, **sampling: Any) -> Any:
    """Calls Generate, greedily unless `sampling` says otherwise."""
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
    request = inference_service_pb2.GenerateRequest(
        deployment="chat",
        request_id=request_id,
        prompt=prompt or [{"text": PROMPT}],
        sampling={"temperature": 0, **sampling},
    )
    return stub.Generate(request, metadata=METADATA, timeout=PATIENCE_S)


async def described(channel: grpc.aio.Channel) -> engine_service_pb2.DescribeResponse:
    """Asks the engine who it is and what it does."""
    stub: Any = engine_service_pb2_grpc.EngineServiceStub(channel)
    answer: engine_service_pb2.DescribeResponse = await stub.Describe(
        engine_service_pb2.DescribeRequest(), metadata=METADATA, timeout=PATIENCE_S
    )
    return answer


async def events_of(call: Any) -> list[Any]:
    """Reads a stream to its end and returns the events."""
    async with cancelling(call):
        return [event async for response in call for event in response.events]
