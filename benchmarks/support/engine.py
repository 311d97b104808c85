"""Roundhouse's engine in this process: model, scheduler and step loop as an engine process puts them together."""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.support.child import Clock
from benchmarks.support.wire import Request, Setup
from engines.backends.torch_lm.load import Loaded, load_model
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.config import MAX_BATCHED_TOKENS
from engines.heap import frugal_heap
from engines.loop import Proposer, Runner, StepLoop
from engines.model import End, Event, FinishReason, Sampling, Tokens, Work

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
LONGEST_S = 600.0  # without any request's end


class Engine:
    """The step loop of a model, and what it says to requests."""

    def __init__(
        self,
        setup: Setup,
        wrap: Callable[[Runner], Runner] = lambda runner: runner,
        guess: Callable[[Loaded], Proposer | None] = lambda _: None,
    ) -> None:
        """What `wrap` returns stands between the loop and the runner; what `guess` returns guesses tokens ahead."""
        max_batched_tokens = int(setup.options.get("budget", MAX_BATCHED_TOKENS["cpu"]))
        with frugal_heap():  # this and what follows as the engine's process does it
            self.loaded: Loaded = load_model(
                Path(setup.model),
                device="cpu",
                dtype=setup.dtype,
                quantization=str(setup.options.get("quantization", "")),
                kv_cache_bytes=setup.kv_cache_bytes,
                max_model_len=setup.max_model_len,
                batch_size=setup.batch_size,
                max_batched_tokens=max_batched_tokens,
            )
        self.pool = BlockPool(self.loaded.total_blocks, self.loaded.block_size)
        self.scheduler = Scheduler(self.pool, batch_size=setup.batch_size, max_batched_tokens=max_batched_tokens)
        self.steps = StepLoop(
            wrap(self.loaded.runner),
            self.scheduler,
            self.loaded.tokenizer.transcript,
            max_waiting=100_000,
            proposer=guess(self.loaded),
        )
        gc.collect()
        gc.freeze()
        self.steps.start()
        self.notes = self.loaded.numerics
        self._run_count = 0

    def run(self, requests: Sequence[Request], clock: Clock) -> Sequence[Sequence[float]]:
        """See `Peer`."""
        self._run_count += 1
        times: list[list[float]] = [[] for _ in requests]
        ends: queue.SimpleQueue[End] = queue.SimpleQueue()
        for number, request in sorted(enumerate(requests), key=lambda each: each[1].at_s):
            if (early_s := request.at_s - clock.now_s()) > 0:
                threading.Event().wait(early_s)
            work = Work(f"{self._run_count}-{number}", request.prompt, request.output_count, GREEDY)
            self.steps.submit([work], _Sink(times[number], ends, clock))
        for _ in requests:
            end = ends.get(timeout=LONGEST_S)
            if end.reason is not FinishReason.LENGTH:
                raise RuntimeError(f"a request ended with {end.reason.name}") from end.error
        return times


class _Sink:
    """Notes when tokens came, on the loop's thread."""

    def __init__(self, times: list[float], ends: queue.SimpleQueue[End], clock: Clock) -> None:
        self._times = times
        self._ends = ends
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Takes an event."""
        if isinstance(event, Tokens):
            self._times.extend([self._clock.now_s()] * len(event.ids))
        elif isinstance(event, End):
            self._ends.put(event)
