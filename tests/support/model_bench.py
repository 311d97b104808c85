"""Runs requests through a step loop and a model of torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from engines.backends.torch_lm.load import Loaded
from engines.backends.torch_lm.runner import TorchRunner
from engines.model import Work
from tests.support.outputs import Bench, bench


def needs_the_same_bits(model: Loaded) -> None:
    """Skips a test where a model's logits depend, in their last bits, on what is computed beside them."""
    if not model.is_batch_invariant:
        pytest.skip("there are no kernels in C: torch's own are not batch-invariant")


@contextlib.contextmanager
def bench_of(
    model: Loaded,
    *,
    batch_size: int = 8,
    max_batched_tokens: int = 32,
    blocks: int | None = None,
    shares_prefixes: bool = True,
    depth: int = 0,
    batch_interval_s: float = 0.0,
) -> Iterator[Bench]:
    """Starts a step loop. blocks: all that the model has if None. depth: of the runner, 1 as if it were on a GPU."""
    runner = model.runner
    assert isinstance(runner, TorchRunner)
    runner.depth = depth
    with bench(
        runner,
        blocks=blocks or model.total_blocks,
        block_size=model.block_size,
        batch_size=batch_size,
        max_batched_tokens=max_batched_tokens,
        shares_prefixes=shares_prefixes,
        batch_interval_s=batch_interval_s,
        transcript=model.tokenizer.transcript,
    ) as it:
        yield it


def alone(model: Loaded, *requests: Work) -> list[list[int]]:
    """Returns what each request gives by itself, all of its prompt computed for it."""
    with bench_of(model, shares_prefixes=False) as it:
        return [it.run(request).ids for request in requests]
