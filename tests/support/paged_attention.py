"""Sequences of random queries, keys and values, attended in any cut, and what must come out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import KvCache, LayerShape
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.kernels.rows import Rows

CPU = torch.device("cpu")
Step = Sequence[tuple[int, int]]  # (sequence, how many more of its tokens)


@dataclass(frozen=True)
class Layer:
    """One layer."""

    heads: int = 6
    kv_heads: int = 2
    key_dim: int = 32
    value_dim: int = 32
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False

    @property
    def shape(self) -> Shape:
        sinks = torch.linspace(-1, 2, self.heads) if self.has_sinks else None
        return Shape(0, self.key_dim**-0.5, self.window, self.softcap, sinks)


@dataclass(frozen=True)
class Tokens:
    """A sequence: [tokens, heads, dim] each."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def tokens_of(layer: Layer, count: int, seed: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)

    def numbers(heads: int, dim: int) -> Tensor:
        return torch.randn(count, heads, dim, generator=generator).to(layer.dtype)

    kv_heads = layer.kv_heads
    return Tokens(
        numbers(layer.heads, layer.key_dim), numbers(kv_heads, layer.key_dim), numbers(kv_heads, layer.value_dim)
    )


def expected(layer: Layer, tokens: Tokens) -> Tensor:
    """Returns what each token sees, [tokens, heads, value_dim], in float64."""
    group = layer.heads // layer.kv_heads
    queries = tokens.queries.double()
    keys, values = (each.double().repeat_interleave(group, 1) for each in (tokens.keys, tokens.values))
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * layer.shape.scale
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    distance = torch.arange(len(queries))[:, None] - torch.arange(len(queries))
    is_seen = (distance >= 0) & (distance < (layer.window or len(queries)))
    scores = scores.masked_fill(~is_seen, -torch.inf)
    if layer.has_sinks:
        sinks = layer.shape.sinks
        assert sinks is not None
        scores = torch.cat([scores, sinks.double().view(-1, 1, 1).expand(-1, len(queries), 1)], dim=-1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., : len(queries)], values)


def attend(
    kernels: Kernels, layer: Layer, sequences: Sequence[Tokens], steps: Sequence[Step], seed: int
) -> list[Tensor]:
    """Returns what each token of each sequence sees, computed in these steps, with blocks scattered by the seed.

    What is not written yet is NaN, so that whoever reads it is found out.
    """
    chance = random.Random(seed)
    size = layer.block_size
    widths = [-(-len(each.keys) // size) for each in sequences]
    total = sum(widths) + 2
    free = chance.sample(range(total), total)
    blocks = [[free.pop() for _ in range(width)] for width in widths]
    kept = LayerShape(layer.kv_heads, layer.key_dim, layer.value_dim)
    cache = KvCache({0: kept}, blocks=total, block_size=size, dtype=layer.dtype, device=CPU, kernels=kernels)
    attention = cache.attention(layer.shape, layer.heads)
    nothing = torch.arange(total * size)
    spoiled = torch.full((len(nothing), layer.kv_heads, layer.key_dim), torch.nan, dtype=layer.dtype)
    whole = Rows([len(nothing)], [len(nothing)], [list(range(total))], size, CPU)
    attention.write(spoiled, spoiled.new_full((len(nothing), layer.kv_heads, layer.value_dim), torch.nan), whole)
    done = [0] * len(sequences)
    outputs: list[list[Tensor]] = [[] for _ in sequences]
    for step in steps:
        for index, count in step:
            done[index] += count
        counts, lengths = [count for _, count in step], [done[index] for index, _ in step]
        rows = Rows(counts, lengths, [blocks[index] for index, _ in step], size, CPU)
        runs = [slice(length - count, length) for count, length in zip(counts, lengths, strict=True)]

        def joined(name: str, step: Step = step, runs: Sequence[slice] = runs) -> Tensor:
            return torch.cat([getattr(sequences[index], name)[run] for (index, _), run in zip(step, runs, strict=True)])

        attention.write(joined("keys"), joined("values"), rows)
        seen = attention.attend(joined("queries"), rows)
        for (index, count), start in zip(step, rows.starts.tolist(), strict=False):
            outputs[index].append(seen[start : start + count])
    assert done == [len(each.keys) for each in sequences]
    return [torch.cat(parts) for parts in outputs]
