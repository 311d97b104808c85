"""Measures decoding on an NVIDIA GPU: how near it comes to what memory allows, beside transformers' own batching.

`python -m benchmarks.gpu`. Ends with a message where torch finds no GPU. The model has the shape of Llama 3.1 8B and
random weights, in bfloat16; nothing is downloaded or written but results. `--profile` adds which kernels take the time.
Aims: 80 % of what memory allows at batch 1; three times transformers' continuous batching at 64 and at 256.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.support.paths import RESULTS_DIRECTORY, result_path
from benchmarks.support.records import Records
from engines.backends.torch_lm.cache import block_bytes
from engines.backends.torch_lm.cuda.machine import Cuda, Machine
from engines.backends.torch_lm.cuda.place import place
from engines.backends.torch_lm.place import Placed, Wishes
from engines.backends.torch_lm.self_test import SelfTest
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.loading import Count, LoadStage
from engines.loop import StepLoop
from engines.model import End, Event, Sampling, Tokens, Work

LLAMA_8B: Mapping[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
QUICK: Mapping[str, Any] = {**LLAMA_8B, "num_hidden_layers": 4, "vocab_size": 8192}
ROWS = (1, 64, 256)
PROMPT, OUTPUT = 512, 256  # tokens of each sequence
CONTEXT, BLOCK_SIZE, STEP_TOKENS = 1024, 16, 8192
REPEATS = 3
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
LONGEST_S = 600.0  # for one run


@dataclass(frozen=True, slots=True)
class Run:
    """What some sequences side by side took."""

    whole_s: float
    step_s: float  # of one step while all of them decoded


@dataclass(slots=True)
class Clocks:
    """When the tokens of all sequences came."""

    rows: int
    firsts: dict[int, float] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)
    tokens: list[tuple[float, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def sink(self, row: int) -> Callable[[Event], None]:
        """Returns what takes the events of one sequence."""

        def take(event: Event) -> None:
            now_s = time.perf_counter()
            if isinstance(event, Tokens):
                self.firsts.setdefault(row, now_s)
                self.tokens.append((now_s, len(event.ids)))
            elif isinstance(event, End):
                assert event.error is None, event.error
                self.ends.append(now_s)
                if len(self.ends) == self.rows:
                    self.over.set()

        return take

    @property
    def step_s(self) -> float:
        """What a step took from when the last sequence had begun to speak until the first one ended."""
        begin_s, end_s = max(self.firsts.values()), min(self.ends)
        count = sum(count for at_s, count in self.tokens if begin_s < at_s <= end_s)
        return (end_s - begin_s) * self.rows / count


class Mute:
    """A transcript without text."""

    matched_stop = ""

    def write(self, token: int) -> str:  # noqa: ARG002
        """Takes the next id."""
        return ""

    def close(self) -> str:
        """Returns what is left."""
        return ""


def read(shape: Mapping[str, Any], device: torch.device) -> Any:
    """Makes the model, on the device."""
    transformers: Any = import_module("transformers")
    config = transformers.LlamaConfig(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=None)
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval().requires_grad_(False)


def placed(shape: Mapping[str, Any], rows: int, machine: Machine) -> Placed:
    """Makes the runner, with a cache that holds all sequences."""
    model = read(shape, machine.device)
    kept = SelfTest(model, machine.device).layers.kept
    del model
    blocks = rows * -(-(PROMPT + OUTPUT) // BLOCK_SIZE) + 64
    wishes = Wishes(
        block_size=BLOCK_SIZE,
        kv_cache_bytes=blocks * block_bytes(kept, BLOCK_SIZE, torch.bfloat16),
        context=CONTEXT,
        batch_size=rows,
        max_batched_tokens=STEP_TOKENS,
    )
    return place(lambda: read(shape, machine.device), wishes, _print, machine)


def _print(message: str, _stage: LoadStage | None = None, _count: Count | None = None, /) -> None:
    print(f"  {message}")


def ours(made: Placed, rows: int, vocabulary: int, repeats: int) -> list[Run]:
    """Runs the sequences through the step loop."""
    scheduler = Scheduler(
        BlockPool(made.total_blocks, BLOCK_SIZE), batch_size=max(ROWS), max_batched_tokens=STEP_TOKENS
    )
    loop = StepLoop(made.runner, scheduler, lambda _: Mute(), max_waiting=max(ROWS))
    loop.start()
    runs = []
    try:
        for repeat in range(repeats + 1):  # the first one warms up
            clocks, begin_s = Clocks(rows), time.perf_counter()
            for row, prompt in enumerate(prompts(rows, vocabulary, repeat)):
                loop.submit([Work(f"{repeat}-{row}", prompt, OUTPUT, GREEDY)], clocks.sink(row))
            assert clocks.over.wait(LONGEST_S), "a run has not ended"
            end_s = time.perf_counter()
            runs.append(Run(end_s - begin_s, clocks.step_s))
    finally:
        loop.stop(LONGEST_S)
    return runs[1:] or runs


def transformers_batching(model: Any, rows: int, vocabulary: int, repeats: int) -> list[float]:
    """Runs the same sequences through transformers' own continuous batching; returns seconds."""
    transformers: Any = import_module("transformers")
    greedy = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    configuration = transformers.ContinuousBatchingConfig(max_batch_tokens=STEP_TOKENS, max_requests_per_batch=rows)
    manager = model.init_continuous_batching(greedy, configuration)
    manager.start()
    times = []
    try:
        for repeat in range(repeats + 1):
            begin_s = time.perf_counter()
            for row, prompt in enumerate(prompts(rows, vocabulary, repeat)):
                manager.add_request(list(prompt), request_id=f"{repeat}-{row}", max_new_tokens=OUTPUT)
            for _ in range(rows):
                result = manager.get_result(timeout=LONGEST_S)
                if result is None or result.error:
                    raise RuntimeError(result.error if result else "the manager has stopped")
            times.append(time.perf_counter() - begin_s)
    finally:
        manager.stop(block=True)
    return times[1:]


def prompts(rows: int, vocabulary: int, repeat: int) -> Sequence[tuple[int, ...]]:
    """Returns prompts that have nothing in common, so that no prefix is found in a cache."""
    generator = torch.Generator().manual_seed(repeat * 1000 + rows)
    ids = torch.randint(3, vocabulary, (rows, PROMPT), generator=generator)
    return [tuple(row) for row in ids.tolist()]


def copy_bandwidth() -> float:
    """Returns bytes a second that a copy within the GPU's memory reads and writes, the best of some."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    events: Any = torch.cuda.Event
    times = []
    for _ in range(5):
        begin, end = events(enable_timing=True), events(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) / 1e3)
    return 2.0 * source.numel() / min(times)


def step_bytes(shape: Mapping[str, Any], rows: int) -> float:
    """Returns what one step has to read: all weights but the embedding, and the keys and values of all sequences."""
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    heads, kv_heads, dim = shape["num_attention_heads"], shape["num_key_value_heads"], shape["head_dim"]
    layer = hidden * dim * (2 * heads + 2 * kv_heads) + 3 * hidden * inner
    weights = layers * layer + hidden * shape["vocab_size"]
    kept = rows * (PROMPT + OUTPUT / 2) * 2 * layers * kv_heads * dim
    return float(2 * (weights + kept))


def profiled(run: Callable[[], object]) -> str:
    """Returns a table of the kernels that take the time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
    return str(profile.key_averages().table(sort_by="cuda_time_total", row_limit=25))


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four layers in place of 32")
    parser.add_argument("--profile", action="store_true", help="writes which kernels take the time")
    parser.add_argument("--without-peer", action="store_true", help="leaves transformers' batching out")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("torch finds no NVIDIA GPU here, so nothing is measured: run this on a machine that has one")
        return
    shape = QUICK if asked.quick else LLAMA_8B
    records = Records(result_path(asked.results, "gpu"))
    bandwidth = copy_bandwidth()
    name = torch.cuda.get_device_name()
    records.add("run", gpu=name, torch=torch.__version__, copy_bytes_per_s=bandwidth, shape=dict(shape))
    print(f"{name}: a copy moves {bandwidth / 1e12:.2f} TB/s")
    measure(shape, records, bandwidth, asked)
    print(f"raw results: {records.path}")


def measure(shape: Mapping[str, Any], records: Records, bandwidth: float, asked: argparse.Namespace) -> None:
    """Measures ours, then the peer."""
    vocabulary, seconds = int(shape["vocab_size"]), dict[int, float]()
    made = placed(shape, max(ROWS), Cuda(torch.device("cuda")))
    for rows in ROWS:
        runs = ours(made, rows, vocabulary, REPEATS)
        step_s = statistics.median(run.step_s for run in runs)
        seconds[rows] = statistics.median(run.whole_s for run in runs)
        share = step_bytes(shape, rows) / bandwidth / step_s
        records.add("ours", rows=rows, way=made.numerics, step_s=step_s, whole_s=seconds[rows], roofline=share)
        print(
            f"batch {rows}: a step takes {step_s * 1e3:.2f} ms, {share:.0%} of what memory allows; with prompts, "
            f"{rows * OUTPUT / seconds[rows]:.0f} tokens/s"
        )
        if asked.profile:
            path = records.path.with_name(f"{records.path.stem}-batch-{rows}.txt")
            path.write_text(profiled(partial(ours, made, rows, vocabulary, 0)), encoding="utf-8")
    del made
    gc.collect()
    torch.cuda.empty_cache()
    for rows in () if asked.without_peer else ROWS:
        whole_s = statistics.median(transformers_batching(read(shape, torch.device("cuda")), rows, vocabulary, REPEATS))
        records.add("transformers", rows=rows, whole_s=whole_s, times=whole_s / seconds[rows])
        print(f"batch {rows}: transformers takes {whole_s / seconds[rows]:.1f} times as long")


if __name__ == "__main__":
    main()
