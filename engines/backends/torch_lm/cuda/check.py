"""Compares what a runner gives with what the stock implementation gives, before it is trusted with requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.backends.torch_lm.cuda.runner import CudaRunner
from engines.batching import sequence as batching
from engines.batching.batch import Batch, Row
from engines.model import Sampling, Work

_GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
_BLOCKS = ((4, 1, 3), (0, 2))  # of the two sequences; scattered
BLOCK_COUNT, ROW_COUNT, TOKEN_COUNT = 5, 2, 8  # that a comparison needs


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a sequence, of 13 to 24 tokens, or of 5 to 16."""

    ids: Sequence[int]
    logits: Tensor  # [ids, vocabulary]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far logits may be apart, as a share of the largest; and the share of tokens that may fail that."""

    apart: float
    failing: float


def fault_of(runner: CudaRunner, layers: int, long: Expected, short: Expected, tolerance: Tolerance) -> str | None:
    """Returns what is wrong with a runner, or None. Chunks, mixed steps and recorded ones are in the comparison.

    layers: how many of them attend.
    """
    wrong, count = 0, 0
    try:
        for found, wanted in _compared(runner, (long, short)):
            is_close = (found - wanted).abs().max() <= tolerance.apart * wanted.abs().max()
            wrong, count = wrong + int(not is_close), count + 1
            if runner.attended_count != layers:
                return f"{runner.attended_count} of {layers} layers attend"
    except Exception as error:  # noqa: BLE001 - whatever it is, this runner is not what it was taken for
        line = str(error).strip().partition("\n")[0]
        return f"it fails ({type(error).__name__}: {line})"
    return f"{wrong} of {count} tokens differ" if wrong > tolerance.failing * count else None


@torch.inference_mode()
def _compared(runner: CudaRunner, expected: tuple[Expected, Expected]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the logits behind each token, and what they should be."""
    works = [Work("check", tuple(each.ids), max_tokens=1, sampling=_GREEDY) for each in expected]
    sequences = [batching.Sequence(work) for work in works]
    singles = min(len(expected[0].ids) - 12, len(expected[1].ids) - 4)
    firsts = [0, 0]
    for counts in [(8, 0), (4, 4), *[(1, 1)] * singles]:
        rows, wanted = [], []
        for index, count in enumerate(counts):
            first, last = firsts[index], firsts[index] + count
            if count:
                ids = tuple(expected[index].ids[first:last])
                rows.append(Row(sequences[index], ids, first, _BLOCKS[index], logits_from=0))
                wanted.append(expected[index].logits[first:last])
            firsts[index] = last
        found = runner.forward(Batch(tuple(rows)))
        yield from zip(found.values[: len(found.sequences)].float(), torch.cat(wanted).float(), strict=True)
