"""Roundhouse, from its port on: an engine process as a node agent starts it, spoken to over gRPC."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from benchmarks.support.child import Clock, serve
from benchmarks.support.wire import Request, Setup
from engines.config import KEY_FILE, READY_FILE, SPEC_FILE
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2, engine_service_pb2_grpc, engine_spec_pb2, hop_pb2
from roundhouse.v1 import inference_service_pb2, inference_service_pb2_grpc

PATIENCE_S = 300.0
KEY = os.urandom(32)
UUID = "0b7e0000-0000-4000-8000-000000000001"
METADATA = ((HOP_KEY, hop_pb2.Hop(engine_uuid=UUID, engine_key=KEY, principal="local").SerializeToString()),)


class EngineProcess:
    """An engine of its own, and a client in this process."""

    def __init__(self, setup: Setup) -> None:
        self._bundle = Path(tempfile.mkdtemp())
        _write_bundle(self._bundle, setup)
        command = [sys.executable, "-m", "engines", "--bundle", str(self._bundle), "--log-level", "warning"]
        self._process = subprocess.Popen(command)
        self._address = self._listening()
        asyncio.run(self._serving())

    def close(self) -> None:
        """Ends the engine."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._bundle, ignore_errors=True)

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """See `Peer`."""
        return asyncio.run(self._run(requests, clock))

    async def _run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
            return await asyncio.gather(*(_generate(stub, request, clock) for request in requests))

    def _listening(self) -> str:
        ready = self._bundle / READY_FILE
        while not ready.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"the engine has ended with status {self._process.returncode}")
            threading.Event().wait(0.05)  # the file is all that tells
        return json_format.Parse(ready.read_text(encoding="utf-8"), engine_spec_pb2.EngineReady()).address

    async def _serving(self) -> None:
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub: Any = engine_service_pb2_grpc.EngineServiceStub(channel)
            call = stub.Watch(engine_service_pb2.WatchRequest(), metadata=METADATA, timeout=PATIENCE_S)
            async for response in call:
                if any(status.state == engine_service_pb2.ENGINE_STATE_SERVING for status in response.statuses):
                    call.cancel()
                    return
        raise RuntimeError("the engine stopped before it served")


def _write_bundle(bundle: Path, setup: Setup) -> None:
    spec = engine_spec_pb2.EngineBundle(
        engine_uuid=UUID,
        replica="deployments/measured/replicas/0",
        replica_uid="r-1",
        device="cpu",
        listen_host="127.0.0.1",
        spec={"deployment": "measured", "engine": "torch", "model": {"path": setup.model}},
    )
    options = spec.spec.options
    options.kv_cache_memory_bytes = setup.kv_cache_bytes
    options.batch_size = setup.batch_size
    options.max_model_len = setup.max_model_len
    options.dtype = setup.dtype
    (bundle / SPEC_FILE).write_text(json_format.MessageToJson(spec), encoding="utf-8")
    (bundle / KEY_FILE).write_bytes(KEY)


async def _generate(stub: Any, request: Request, clock: Clock) -> Sequence[float]:
    await asyncio.sleep(max(0.0, request.at_s - clock.now_s()))
    message = inference_service_pb2.GenerateRequest(
        deployment="measured",
        prompt=[{"token_ids": {"ids": request.prompt}}],
        sampling={"temperature": 0, "max_tokens": request.output_count, "ignore_eos": True},
    )
    times: list[float] = []
    async for response in stub.Generate(message, metadata=METADATA, timeout=PATIENCE_S):
        for event in response.events:
            times.extend([clock.now_s()] * len(event.delta.token_ids))
    return times


def _threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])  # what the engine is started with


if __name__ == "__main__":
    serve(EngineProcess, threads=_threads, children_count=True)
