"""Runs a few sequences of any tokens through a model and a small cache, step by step, to see what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engines.backends.torch_lm.cache import KvCache, LayerShape
from engines.backends.torch_lm.forward import Forward
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.runner import TorchRunner
from engines.batching.batch import Batch, Row
from engines.batching.sequence import Sequence as Tokens
from engines.model import Sampling, Work

BLOCK_SIZE = 8
_SAMPLING = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


class Trial:
    """A runner whose cache has blocks for a few short sequences."""

    def __init__(
        self,
        forward: Forward,
        shapes: Mapping[int, LayerShape],
        *,
        blocks: int,
        dtype: torch.dtype,
        device: torch.device,
        kernels: Kernels,
    ) -> None:
        cache = KvCache(shapes, blocks=blocks, block_size=BLOCK_SIZE, dtype=dtype, device=device, kernels=kernels)
        self.runner = TorchRunner(forward, cache, device)
        self._computed: dict[Tokens, int] = {}

    def sequence(self, ids: Sequence[int], blocks: Sequence[int]) -> Tokens:
        """Returns a new sequence."""
        sequence = Tokens(Work("trial", tuple(ids), max_tokens=1, sampling=_SAMPLING))
        sequence.blocks = list(blocks)
        self._computed[sequence] = 0
        return sequence

    def step(self, *parts: tuple[Tokens, int]) -> list[Tensor]:
        """Computes so many more tokens of each sequence; returns the logits behind each of them, [tokens, vocabulary].

        Sequences with a single token come first.
        """
        rows = []
        for sequence, count in parts:
            first = self._computed[sequence]
            self._computed[sequence] += count
            ids = tuple(sequence.ids[first : first + count])
            assert len(ids) == count
            rows.append(Row(sequence, ids, first, sequence.blocks, logits_from=0))
        numbers = self.runner.forward(Batch(tuple(rows))).numbers
        return list(torch.split(numbers, [count for _, count in parts]))


def whole_batch(ids: Sequence[int]) -> Batch:
    """Returns a step of one sequence, whole, in the first blocks."""
    sequence = Tokens(Work("trial", tuple(ids), max_tokens=1, sampling=_SAMPLING))
    blocks = range(-(-len(ids) // BLOCK_SIZE))
    return Batch((Row(sequence, tuple(ids), 0, blocks, logits_from=0),))


def some_ids(count: int, vocabulary: int, seed: int) -> list[int]:
    """Returns ids that differ."""
    # Any will do. A large prime steps all over the vocabulary.
    return [(seed * 7 + index * 65521) % vocabulary for index in range(count)]
