"""The demo model served by three engines on two GPUs, seen by its clients."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from google.rpc import error_details_pb2
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines.demo_model import MODEL_DIR
from roundhouse.client import Client
from roundhouse.client.generation import Generation
from roundhouse.v1 import generation_pb2, receipt_pb2
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

NODE = Path(__file__).parents[1] / "node"
PROTOS = Path(__file__).parents[2] / "protos"
STREAMS, MAX_TOKENS = 32, 48
TOPICS = [
    "a fox named Ruby",
    "an owl",
    "Tom the bear",
    "a fast horse",
    "Mia the cat",
    "a frog",
    "Sam the dog",
    "a duck",
]
PROMPTS = [
    f"<|im_start|>user\n{ask} {topic}.<|im_end|>\n<|im_start|>assistant\n"
    for ask in ("Tell me a story about", "Write a story about", "What do you know about", "Repeat after me:")
    for topic in TOPICS
]


@pytest.fixture(scope="session")
def expected() -> dict[str, list[int]]:
    """What `transformers` itself gives for each prompt, greedily, in float32."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    outputs = {}
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)[0].tolist()
        outputs[prompt] = ids[inputs["input_ids"].shape[1] :]
    return outputs


def token_hash(ids: list[int]) -> bytes:
    """The chain of generation.proto, written down again."""
    chain = bytes(32)
    for each in ids:
        chain = hashlib.sha256(chain + struct.pack("<i", each)).digest()
    return chain


async def collect(generation: Generation) -> tuple[Generation, list[int]]:
    """Reads to the end; checks that positions come once, in order, without a gap."""
    ids: list[int] = []
    async with generation:
        async for delta in generation:
            assert delta.first_position == len(ids)
            ids.extend(delta.token_ids)
    assert generation.finished is not None
    assert generation.finished.token_hash == token_hash(ids)
    assert generation.finished.output_token_count == len(ids)
    return generation, ids


async def test_three_replicas_on_two_gpus_are_placed_two_and_one(demo: tuple[Cluster, Client]) -> None:
    _, client = demo
    replicas = (await client.replicas.list("demo")).replicas
    counts = Counter(gpu.uuid for each in replicas for gpu in each.gpus)
    assert sorted(counts.values()) == [1, 2]
    assert len({each.engine_pid for each in replicas}) == 3


async def test_32_concurrent_streams_equal_transformers_own_greedy_generate(
    demo: tuple[Cluster, Client], expected: dict[str, list[int]]
) -> None:
    _, client = demo
    streams = [client.generate("demo", each, temperature=0, max_tokens=MAX_TOKENS) for each in PROMPTS]
    results = await asyncio.gather(*map(collect, streams))
    assert [ids for _, ids in results] == [expected[each] for each in PROMPTS]
    used = Counter(generation.started.replica for generation, _ in results if generation.started is not None)
    assert len(used) == 3


async def test_cancelling_half_of_32_streams_changes_no_other(
    demo: tuple[Cluster, Client], expected: dict[str, list[int]]
) -> None:
    _, client = demo

    async def cancelled(number: int, prompt: str) -> None:
        """Three ways to end: by receipt, by leaving the stream, by a deadline that passes while it runs."""
        name = f"half-{number}"
        endless = client.generate("demo", prompt, max_tokens=1500, ignore_eos=True, temperature=0, request_id=name)
        async with endless:
            async for delta in endless:
                if delta.first_position + len(delta.token_ids) > number % 7:
                    break
        receipt = await client.cancel("demo", name)
        assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
        assert receipt.output_token_count < 1500

    async def kept(prompt: str) -> list[int]:
        _, ids = await collect(client.generate("demo", prompt, temperature=0, max_tokens=MAX_TOKENS))
        return ids

    half = STREAMS // 2
    left = [kept(each) for each in PROMPTS[:half]]
    gone = [cancelled(number, each) for number, each in enumerate(PROMPTS[half:])]
    results = await asyncio.gather(*left, *gone)
    assert results[:half] == [expected[each] for each in PROMPTS[:half]]


async def test_a_cancel_in_mid_stream_gives_a_receipt_that_agrees_with_the_cache(demo: tuple[Cluster, Client]) -> None:
    _, client = demo
    generation = client.generate("demo", "Once upon a time", max_tokens=1500, ignore_eos=True, request_id="receipt")
    received = 0
    receipt = None
    async with generation:
        async for delta in generation:
            received += len(delta.token_ids)
            if receipt is None:
                receipt = await client.cancel("demo", "receipt", generation.location)
    assert receipt is not None
    assert receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    assert receipt.level == receipt_pb2.CANCEL_LEVEL_FREED
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_CLIENT
    assert receipt.freed_block_count == receipt.free_block_count - receipt.free_block_count_before > 0
    assert receipt.free_block_count == receipt.total_block_count
    assert receipt.steps_after in (0, 1)
    assert receipt.output_token_count == received < 1500
    assert generation.finished is not None
    assert generation.finished.reason == generation_pb2.FINISH_REASON_CANCELLED
    assert generation.usage is not None
    assert await client.cancel("demo", "receipt") == receipt


async def test_seeded_sampling_gives_the_same_tokens_on_every_replica(demo: tuple[Cluster, Client]) -> None:
    _, client = demo
    options: Any = {"temperature": 1.0, "top_p": 0.95, "seed": 7, "max_tokens": 24, "ignore_eos": True}
    results = await asyncio.gather(*(collect(client.generate("demo", PROMPTS[0], **options)) for _ in range(6)))
    assert len({tuple(ids) for _, ids in results}) == 1
    assert len({generation.started.replica for generation, _ in results if generation.started is not None}) > 1


async def test_the_demo_model_answers_a_sum(demo: tuple[Cluster, Client]) -> None:
    _, client = demo
    async with client.chat("demo", "What is 12 + 7?", temperature=0) as generation:
        assert "19" in await generation.text()


async def test_a_watch_shows_every_gpu_with_what_is_reserved_on_it(demo: tuple[Cluster, Client]) -> None:
    _, client = demo
    async with client.nodes.watch() as events:
        gpus = (await anext(aiter(events))).changed.gpus
    assert sorted(len(each.replicas) for each in gpus) == [1, 2]
    assert all(each.is_simulated and each.reserved_memory_bytes > 0 for each in gpus)
    assert all(each.available_memory_bytes < each.total_memory_bytes for each in gpus)


@pytest.mark.node
async def test_a_node_js_client_chats_cancels_and_watches(demo: tuple[Cluster, Client]) -> None:
    it, _ = demo
    process = await asyncio.create_subprocess_exec(
        "node", "client.mjs", it.address, str(PROTOS), "demo", cwd=NODE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    steps = {step.pop("step"): step for step in map(json.loads, out.decode().splitlines())}
    assert steps["chat"]["kinds"] == ["started", "delta", "finished", "usage"]
    assert "19" in steps["chat"]["text"]
    assert steps["chat"]["reason"] == "FINISH_REASON_STOP_TOKEN"
    choose = steps["choose"]
    assert choose["prompt"] == "Is 7 more than 3?"
    assert set(choose["texts"]) == {"0", "1"}
    assert set(choose["texts"].values()) <= {"yes", "no"}
    assert sorted(choose["finished"]) == [0, 1]
    assert choose["scored"] == choose["tokens"] > 0
    receipt = steps["cancel"]["receipt"]
    assert receipt["outcome"] == "CANCEL_OUTCOME_CANCELLED"
    assert int(receipt["freed_block_count"]) > 0
    assert receipt["output_token_count"] < steps["cancel"]["asked"]
    assert steps["cancel"]["reason"] == "FINISH_REASON_CANCELLED"
    assert len(steps["nodes"]["gpus"]) == 2
    assert steps["refused"]["code"] == "NOT_FOUND"
    assert '"nobody"' in steps["refused"]["message"]


SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "roundhouse.internal.v1.AgentService",
    "roundhouse.internal.v1.EnrollmentService",
    "roundhouse.internal.v1.FleetService",
    "roundhouse.v1.AccessService",
    "roundhouse.v1.CatalogService",
    "roundhouse.v1.DeploymentService",
    "roundhouse.v1.EventService",
    "roundhouse.v1.InferenceService",
    "roundhouse.v1.NodeService",
]


async def curl(it: Cluster, *arguments: str) -> tuple[int, str]:
    """Runs `buf curl`, which reads the same lines as grpcurl, with nothing but reflection to go by."""
    process = await asyncio.create_subprocess_exec(
        NODE / "node_modules/.bin/buf",
        "curl",
        "--http2-prior-knowledge",
        "--protocol",
        "grpc",
        *[each.replace("ADDRESS", f"http://{it.address}") for each in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.mark.node
@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
async def test_reflection_lists_every_service_to_buf_curl(demo: tuple[Cluster, Client], protocol: str) -> None:
    it, _ = demo
    code, out = await curl(it, "--reflect-protocol", protocol, "--list-services", "ADDRESS")
    assert code == 0, out
    assert sorted(out.split()) == SERVICES


@pytest.mark.node
async def test_buf_curl_streams_a_chat_by_reflection_alone(demo: tuple[Cluster, Client]) -> None:
    it, _ = demo
    body = {
        "deployment": "demo",
        "messages": [{"role": "ROLE_USER", "content": [{"text": "What is 20 + 3?"}]}],
        "sampling": {"temperature": 0},
    }
    code, out = await curl(it, "-d", json.dumps(body), "ADDRESS/roundhouse.v1.InferenceService/Chat")
    assert code == 0, out
    decoder, events, rest = json.JSONDecoder(), [], out.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        events += message["events"]
        rest = rest[end:].lstrip()
    assert "started" in events[0]
    assert "23" in "".join(event["delta"].get("text", "") for event in events if "delta" in event)
    assert "usage" in events[-1]


@pytest.mark.node
async def test_buf_curl_names_every_bad_field_of_a_request(demo: tuple[Cluster, Client]) -> None:
    it, _ = demo
    sampling = {"n": 17, "logitBias": {"-1": 1}, "constraint": {"regex": "("}, "minP": "NaN"}
    body = json.dumps({"deployment": "demo", "prompt": [{"text": "x"}], "sampling": sampling})
    code, out = await curl(it, "-d", body, "ADDRESS/roundhouse.v1.InferenceService/Generate")
    assert code != 0
    fields = ("sampling.n", "sampling.logit_bias", "sampling.min_p")
    assert all(f"{field}:" in json.loads(out)["message"] for field in fields)


@pytest.mark.node
async def test_buf_curl_shows_the_details_of_an_error(demo: tuple[Cluster, Client]) -> None:
    it, _ = demo
    body = json.dumps({"deployment": "demo", "prompt": [{"text": "x"}], "sampling": {"temperature": -1, "top_p": 2}})
    code, out = await curl(it, "-d", body, "ADDRESS/roundhouse.v1.InferenceService/Generate")
    assert code != 0
    answer = json.loads(out)
    assert answer["code"] == "invalid_argument"
    packed = {each["type"]: base64.b64decode(each["value"] + "==") for each in answer["details"]}
    info = error_details_pb2.ErrorInfo.FromString(packed["google.rpc.ErrorInfo"])
    assert (info.reason, info.domain) == ("FIELD_INVALID", "roundhouse")
    bad = error_details_pb2.BadRequest.FromString(packed["google.rpc.BadRequest"])
    assert {each.field for each in bad.field_violations} == {"sampling.temperature", "sampling.top_p"}
