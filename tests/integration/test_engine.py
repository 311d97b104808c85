"""An engine as the process that it is: started from a bundle, spoken to over its port, ended by a signal."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.demo_model import MODEL_DIR
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc, receipt_pb2
from tests.support.engine_process import (
    KEY,
    METADATA,
    PATIENCE_S,
    PROMPT,
    UUID,
    Engine,
    events_of,
    generate,
    serving,
    start,
)

LONG = {"max_tokens": 1500, "ignore_eos": True, "temperature": 0}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = start(tmp_path / "bundle", "--log-level", "debug")
    yield engine
    engine.end()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


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


async def test_an_engine_that_is_watched_while_it_cannot_load_says_no_more_than_that(tmp_path: Path) -> None:
    engine = start(tmp_path / "bundle", spec={"model": {"path": str(tmp_path)}})
    try:
        async with open_channel(await engine.address()) as channel:
            with pytest.raises(AssertionError, match="stopped before it served"):
                await serving(channel)
            assert await engine.exit_status() == 3
    finally:
        engine.end()
    assert engine.stderr().splitlines()[-1].startswith("engine: cannot load the model: ")
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
