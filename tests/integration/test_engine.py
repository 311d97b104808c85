"""An engine as the process that it is: started from a bundle, spoken to over its port, ended by a signal."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from engines.config import KEY_FILE, READY_FILE, SPEC_FILE
from engines.demo_model import MODEL_DIR
from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2, engine_service_pb2_grpc, engine_spec_pb2, hop_pb2
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc, receipt_pb2
from tests.support.cluster import eventually

KEY = b"0123456789abcdef0123456789abcdef"
UUID = "0b7e0000-0000-4000-8000-000000000001"
METADATA = ((HOP_KEY, hop_pb2.Hop(engine_uuid=UUID, engine_key=KEY, principal="local").SerializeToString()),)
PATIENCE_S = 90.0  # two cores, shared
PROMPT = "What is 2 + 2?"
LONG = {"max_tokens": 1500, "ignore_eos": True, "temperature": 0}


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


def start(bundle: Path, *options: str, **fields: Any) -> Engine:
    """Starts an engine on the demo model, unless `fields` of the bundle say otherwise."""
    bundle.mkdir()
    spec = engine_spec_pb2.EngineBundle(
        engine_uuid=UUID,
        replica="deployments/chat/replicas/0",
        replica_uid="r-1",
        device="cpu",
        listen_host="127.0.0.1",
        spec={"deployment": "chat", "engine": "torch", "model": {"builtin": "demo"}},
    )
    spec.spec.options.kv_cache_memory_bytes = 64 << 20
    spec.MergeFrom(engine_spec_pb2.EngineBundle(**fields))
    (bundle / SPEC_FILE).write_text(json_format.MessageToJson(spec))
    (bundle / KEY_FILE).write_bytes(KEY)
    out, err = bundle.with_suffix(".stdout"), bundle.with_suffix(".stderr")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = [sys.executable, "-m", "engines", "--bundle", str(bundle), *options]
        return Engine(subprocess.Popen(command, stdout=stdout, stderr=stderr, start_new_session=True), bundle)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = start(tmp_path / "bundle", "--log-level", "debug")
    yield engine
    engine.end()


async def serving(channel: grpc.aio.Channel) -> list[str]:
    """Waits until the engine serves, and returns the stages that it went through."""
    stub: Any = engine_service_pb2_grpc.EngineServiceStub(channel)
    call = stub.Watch(engine_service_pb2.WatchRequest(), metadata=METADATA, timeout=PATIENCE_S)
    stages: list[str] = []
    async with cancelling(call):
        async for response in call:
            for status in response.statuses:
                stages.append(status.message)
                if status.state == engine_service_pb2.ENGINE_STATE_SERVING:
                    return stages
    raise AssertionError("the engine stopped before it served")


def generate(channel: grpc.aio.Channel, request_id: str = "", **sampling: Any) -> Any:
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
    request = inference_service_pb2.GenerateRequest(
        deployment="chat", request_id=request_id, prompt=[{"text": PROMPT}], sampling={"temperature": 0, **sampling}
    )
    return stub.Generate(request, metadata=METADATA, timeout=PATIENCE_S)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def events_of(call: Any) -> list[Any]:
    async with cancelling(call):
        return [event async for response in call for event in response.events]


async def test_an_engine_loads_streams_cancels_and_ends(engine: Engine) -> None:
    address = await engine.address()
    async with open_channel(address) as channel:
        stages = await serving(channel)
        assert stages[-1] == "serving"
        inference: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)

        # Whoever runs beside whom, greedy output is the same.
        alone = await events_of(generate(channel, max_tokens=24, ignore_eos=True))
        beside = await asyncio.gather(*(events_of(generate(channel, max_tokens=24, ignore_eos=True)) for _ in range(8)))
        hashes = {events[-2].finished.token_hash for events in [alone, *beside]}
        assert len(hashes) == 1
        assert alone[0].started.fingerprint
        assert alone[-1].usage.output_token_count == 24

        chat = inference_service_pb2.ChatRequest(deployment="chat", sampling={"max_tokens": 64})
        chat.messages.add(role=generation_pb2.ROLE_USER, content=[{"text": PROMPT}])
        events = await events_of(inference.Chat(chat, metadata=METADATA, timeout=PATIENCE_S))
        answer = "".join(event.delta.text for event in events)
        assert answer

        call = generate(channel, "mine", **LONG)
        async with cancelling(call):
            stream = aiter(call)
            while not any(event.HasField("delta") for event in (await anext(stream)).events):
                pass
            cancel = inference_service_pb2.CancelRequestRequest(deployment="chat", request_id="mine")
            receipt = (await inference.CancelRequest(cancel, metadata=METADATA)).receipt
            events = [event async for response in stream for event in response.events]
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert 0 < receipt.output_token_count < LONG["max_tokens"]
        assert receipt.freed_block_count == receipt.free_block_count - receipt.free_block_count_before > 0
        assert receipt.free_block_count == receipt.total_block_count
        assert events[-2].finished.output_token_count == receipt.output_token_count

        # An engine that was adopted needs nothing of its bundle any more, and ends what runs when it has to go.
        shutil.rmtree(engine.bundle)
        call = generate(channel, "last", **LONG)
        async with cancelling(call):
            stream = aiter(call)
            await anext(stream)
            engine.process.send_signal(signal.SIGTERM)
            events = [event async for response in stream for event in response.events]
        assert events[-2].finished.cancel_cause == receipt_pb2.CANCEL_CAUSE_DELETED
    assert await engine.exit_status() == 0
    assert engine.bundle.with_suffix(".stdout").read_bytes() == b""
    logged = engine.stderr()
    assert all(json.loads(line)["event"] for line in logged.splitlines())
    assert '"request_id": "mine"' in logged
    for secret in (PROMPT, answer.strip(), KEY.decode(), repr(KEY)):
        assert secret not in logged


async def test_ready_json_names_the_process(engine: Engine) -> None:
    await engine.address()
    ready = engine.ready()
    assert ready.pid == engine.process.pid
    assert ready.process_start_ticks == start_ticks(engine.process.pid)
    assert ready.boot_id == boot_id()
    assert ready.engine_uuid == UUID


async def test_an_engine_that_is_still_loading_ends_at_once(engine: Engine) -> None:
    await engine.address()
    engine.process.send_signal(signal.SIGTERM)
    assert await engine.exit_status() == 0
    assert '"engine serves"' not in engine.stderr()


@pytest.mark.parametrize(
    ("model", "files", "wrong"),
    [
        pytest.param("nowhere", {}, "nowhere", id="no directory"),
        pytest.param("model", {"config.json": "{"}, "config.json", id="a broken config"),
        pytest.param("model", {"config.json": None, "tokenizer.json": None}, "weights", id="no weights"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_one_line_and_status_3(
    tmp_path: Path, model: str, files: dict[str, str | None], wrong: str
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    for name, content in files.items():
        if content is None:
            shutil.copy(MODEL_DIR / name, directory)
        else:
            (directory / name).write_text(content)
    engine = start(tmp_path / "bundle", spec={"model": {"path": str(tmp_path / model)}})
    try:
        assert await engine.exit_status() == 3
    finally:
        engine.end()
    last = engine.stderr().splitlines()[-1]
    assert last.startswith("engine: cannot load the model: ")
    assert wrong in last
    assert "Traceback" not in engine.stderr()


async def test_an_unknown_builtin_names_those_that_exist(tmp_path: Path) -> None:
    engine = start(tmp_path / "bundle", spec={"model": {"builtin": "other"}})
    try:
        assert await engine.exit_status() == 3
    finally:
        engine.end()
    assert "use one of demo" in engine.stderr().splitlines()[-1]


async def test_a_bundle_that_cannot_be_used_is_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        no_port = start(tmp_path / "no_port", lowest_port=port, highest_port=port)
        no_device = start(tmp_path / "no_device", device="tpu")
        try:
            assert [await no_port.exit_status(), await no_device.exit_status()] == [2, 2]
        finally:
            no_port.end()
            no_device.end()
    # Above it stands a line of gRPC's own.
    last = no_port.stderr().splitlines()[-1]
    assert last == f"engine: no port of {port}-{port} on 127.0.0.1 is free: widen the node agent's --engine-ports"
    assert no_device.stderr() == 'engine: device "tpu" is unknown: use cpu or cuda\n'


async def test_the_first_free_port_of_the_range_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        engine = start(tmp_path / "bundle", lowest_port=port, highest_port=port + 20)
        try:
            host, _, chosen = (await engine.address()).rpartition(":")
            assert host == "127.0.0.1"
            assert port < int(chosen) <= port + 20
        finally:
            engine.end()
