"""What an engine process takes of a host, against what is reserved for it.

An estimate is made as the control plane makes it: from the headers of the files, by way of the node agent's facts. Then
a real engine loads the model, computes steps that are as large as it may be asked for, with the logits of every token,
and its memory is read every few milliseconds from /proc/PID/status. Compared with the estimate are:

- what it has allocated at most: the peak of RssAnon + RssShmem, by which the memory falls that a host has available;
- what is resident at most: the same and the libraries that are mapped (RssFile, without the files of the model, which
  are page cache that the kernel takes back). Where the cache is larger than the files, VmHWM says the same, and is
  compared as well; where it is smaller, VmHWM counts the files that were mapped while they were loaded.

The estimate is never below either, and at most a tenth above what is resident where an engine takes 2 GiB or more. Of
smaller ones the constant for the run-time is the larger part.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from controlplane.api.sizing import Sized, sized
from engines.batching.rows import SCORED_TOKENS
from engines.config import MAX_BATCHED_TOKENS
from nodeagent.models.cache import HubCache
from nodeagent.models.hub import Hub
from nodeagent.models.lookup import Models, builtin_directory
from roundhouse.internal.v1.agent_service_pb2 import ModelFacts
from roundhouse.kit.channel import open_channel
from roundhouse.v1.deployment_pb2 import SPECULATION_METHOD_DRAFT_MODEL, Deployment, EngineOptions, ModelSource
from tests.support.engine_process import events_of, generate, serving, start
from tests.support.tiny_models import END, byte_level_tokenizer, write_tokenizer

MIB, GIB = 1 << 20, 1 << 30
PERIOD_S = 0.005
LOAD_S = 300.0
_COMMON: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 2048,
}
MODELS: Mapping[str, tuple[str, int, Mapping[str, Any]]] = {
    "deep": ("qwen3", 32_000, {**_COMMON, "num_hidden_layers": 12}),
    "tied": ("llama", 151_936, {**_COMMON, "num_hidden_layers": 4, "tie_word_embeddings": True}),
    "draft": ("qwen3", 32_000, {**_COMMON, "num_hidden_layers": 1}),
    "experts": (
        "qwen3_moe",
        32_000,
        {
            **_COMMON,
            "num_hidden_layers": 6,
            "num_experts": 16,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 512,
        },
    ),
}


@dataclass(frozen=True)
class Case:
    """An engine, and how much more than it takes may be reserved."""

    model: str = "deep"
    stored: str = "bfloat16"
    options: Mapping[str, Any] = field(default_factory=dict)
    draft: str = ""
    most: float = 1.1
    is_seen_by_hwm: bool = True


CASES = {
    "converted": Case(options={"kv_cache_memory_bytes": GIB}),
    "half": Case(options={"kv_cache_memory_bytes": 3 * GIB // 2, "dtype": "bfloat16"}, is_seen_by_hwm=False),
    "mapped": Case(stored="float32", options={"kv_cache_memory_bytes": GIB}, is_seen_by_hwm=False),
    "int8": Case(options={"kv_cache_memory_bytes": GIB, "quantization": "int8"}),
    "int8 and a small cache": Case(
        options={"kv_cache_memory_bytes": 128 * MIB, "quantization": "int8"}, most=1.2, is_seen_by_hwm=False
    ),
    "many logits": Case("tied", options={"kv_cache_memory_bytes": GIB // 2}),
    "large steps": Case(options={"kv_cache_memory_bytes": GIB // 2, "max_num_batched_tokens": 2048}),
    "experts": Case("experts", options={"kv_cache_memory_bytes": GIB}),
    "draft": Case(options={"kv_cache_memory_bytes": GIB}, draft="draft"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns what writes a model once."""
    folder = tmp_path_factory.mktemp("models")

    def write(name: str, stored: str) -> Path:
        directory = folder / f"{name}-{stored}"
        if not directory.exists():
            tokenizer = byte_level_tokenizer()
            write_tokenizer(directory, tokenizer)
            end = tokenizer.token_to_id(END)
            family, vocabulary, fields = MODELS[name]
            maker: Any = AutoConfig
            factory: Any = AutoModelForCausalLM
            config = maker.for_model(family, vocab_size=vocabulary, eos_token_id=end, pad_token_id=end, **fields)
            factory.from_config(config, dtype=getattr(torch, stored)).save_pretrained(directory)
        return directory

    return write


@dataclass
class Memory:
    """What a process has taken, in bytes."""

    allocated: int = 0  # at most, by nobody but itself
    mapped: int = 0  # of files, last
    high: int = 0  # what the kernel says of its peak

    def read(self, pid: int) -> None:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes = (line.partition(":") for line in lines if line.endswith("kB"))
        found = {key: int(text.split()[0]) * 1024 for key, _, text in sizes}
        self.allocated = max(self.allocated, found["RssAnon"] + found["RssShmem"])
        self.mapped, self.high = found["RssFile"], found["VmHWM"]


@contextlib.asynccontextmanager
async def watched(pid: int) -> AsyncIterator[Memory]:
    """Watches the memory of a process during the block."""
    memory = Memory()

    async def watch() -> None:
        while True:
            memory.read(pid)
            await asyncio.sleep(PERIOD_S)

    task = asyncio.create_task(watch(), name="memory")
    try:
        yield memory
        memory.read(pid)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def mapped_of(pid: int, directory: Path) -> int:
    """Returns how much is resident of the files of a model."""
    size, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line[0] in "0123456789abcdef":
            is_ours = str(directory) in line
        elif is_ours and line.startswith("Rss:"):
            size += int(line.split()[1]) * 1024
    return size


async def facts_of(source: ModelSource) -> ModelFacts:
    """Returns what a node agent finds."""
    found = asyncio.Event()
    cache = HubCache(Path("/nowhere"))
    async with Models(builtin_directory, cache, Hub({}, cache), on_change=found.set) as models:
        models.probe([source])
        await found.wait()
        [facts] = models.facts()
        return facts


async def taken(estimate: Sized, source: Path | None, folder: Path) -> tuple[Memory, int]:
    """Runs an engine as it is told to, asks of it what it can be asked for, and returns what that took."""
    process = start(folder / "bundle", spec=estimate.spec)
    pid = process.process.pid
    try:
        async with watched(pid) as memory, open_channel(await process.address()) as channel:
            await serving(channel, LOAD_S)
            # Prompts that fill a step, of each of whose tokens the logits are wanted.
            tokens = estimate.spec.options.max_num_batched_tokens or MAX_BATCHED_TOKENS["cpu"]
            prompts = [[(7 * at + 31 * number) % 300 for at in range(300)] for number in range(tokens // SCORED_TOKENS)]
            asked: Any = {"max_tokens": 4, "ignore_eos": True, "prompt_logprobs": 1}
            calls = [generate(channel, prompt=[{"token_ids": {"ids": ids}}], **asked) for ids in prompts]
            await asyncio.gather(*map(events_of, calls))
        return memory, 0 if source is None else mapped_of(pid, source)
    finally:
        process.end()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_is_reserved_is_enough_and_hardly_more(case: Case, written: Any, tmp_path: Path) -> None:
    directory: Path = written(case.model, case.stored)
    options = EngineOptions(**case.options)
    draft = None
    if case.draft:
        path = str(written(case.draft, case.stored))
        options.speculation.method = SPECULATION_METHOD_DRAFT_MODEL
        options.speculation.draft_model.path = path
        draft = await facts_of(ModelSource(path=path))
    source = ModelSource(path=str(directory))
    deployment = Deployment(name="deployments/chat", model=source, engine="torch", engine_options=options)
    estimate = sized(deployment, await facts_of(source), {"cpu"}, draft)
    memory, of_model = await taken(estimate, directory, tmp_path)
    reserved, resident = estimate.need.total_bytes, memory.allocated + memory.mapped - of_model
    print(
        f"reserved {reserved // MIB} MiB, resident {resident // MIB}, allocated {memory.allocated // MIB}, "
        f"VmHWM {memory.high // MIB}: {reserved / resident - 1:+.1%}; {estimate.need}"
    )
    assert reserved >= resident
    if case.is_seen_by_hwm:
        assert reserved >= memory.high
    assert reserved <= case.most * resident


@pytest.mark.timeout(300)
async def test_the_smallest_engine_takes_no_more_than_is_reserved(tmp_path: Path) -> None:
    source = ModelSource(builtin="demo")
    deployment = Deployment(name="deployments/chat", model=source, engine="torch")
    estimate = sized(deployment, await facts_of(source), {"cpu"})
    memory, _ = await taken(estimate, None, tmp_path)
    assert estimate.need.total_bytes >= memory.high
