"""Sequences scattered over a cache, and what attention over them gives, computed the long way in float64."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.kernels.sizes import QUERY_TILE
from engines.backends.torch_lm.cuda.tables import Tables

# Triton's interpreter runs kernels on the CPU, in a process that sets this before Triton is imported: test_interpreter.
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
TOLERANCES = {torch.float32: 2e-6 if IS_INTERPRETED else 2e-5, torch.bfloat16: 1.5e-2, torch.float16: 2e-3}
# The interpreter computes with numpy, which warns of an exponential that becomes infinite, as it should.
marks = [pytest.mark.filterwarnings("ignore:overflow encountered in exp")] if IS_INTERPRETED else [pytest.mark.gpu]


@dataclass(frozen=True, slots=True)
class Layer:
    """How a layer attends."""

    heads: int = 4
    kv_heads: int = 2
    key_dim: int = 64
    value_dim: int = 64
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    dtype: torch.dtype = torch.float32
    block_size: int = 16


@dataclass(slots=True)
class Scene:
    """One step over one layer."""

    shape: Shape
    query: Tensor  # [tokens, heads, key_dim]
    new_keys: Tensor  # [kv_heads, tokens, key_dim]
    new_values: Tensor
    keys: Tensor  # [blocks, block_size, kv_heads, key_dim]
    values: Tensor
    tables: Tables
    expected: Tensor  # [tokens, heads, value_dim], float64


def scene(layer: Layer, lengths: Sequence[int], counts: Sequence[int], seed: int = 0) -> Scene:
    """Makes sequences of so many keys, the last `count` of which come with this step. Single queries first."""
    torch.manual_seed(seed)
    size = layer.block_size
    widths = [-(-length // size) for length in lengths]
    order = torch.randperm(sum(widths) + 3)
    # What no sequence holds is poison: a NaN that is read is seen.
    keys = torch.full((len(order), size, layer.kv_heads, layer.key_dim), torch.nan, dtype=layer.dtype)
    values = torch.full((len(order), size, layer.kv_heads, layer.value_dim), torch.nan, dtype=layer.dtype)
    query = torch.randn(sum(counts), layer.heads, layer.key_dim).to(layer.dtype)
    sinks = torch.randn(layer.heads).to(layer.dtype) if layer.has_sinks else None
    shape = Shape(0, layer.key_dim**-0.5, layer.window, layer.softcap, sinks)
    expected, slots, new_keys, new_values, begin = [], [], [], [], 0
    for length, count, own in zip(lengths, counts, torch.split(order, [*widths, 3]), strict=False):
        seen_keys = torch.randn(length, layer.kv_heads, layer.key_dim).to(layer.dtype)
        seen_values = torch.randn(length, layer.kv_heads, layer.value_dim).to(layer.dtype)
        places = own.repeat_interleave(size)[:length] * size + torch.arange(length) % size
        keys.flatten(0, 1)[places[: length - count]] = seen_keys[: length - count]
        values.flatten(0, 1)[places[: length - count]] = seen_values[: length - count]
        slots.append(places[length - count :])
        new_keys.append(seen_keys[length - count :])
        new_values.append(seen_values[length - count :])
        expected.append(_attended(shape, query[begin : begin + count], seen_keys, seen_values))
        begin += count
    tables = _tables(lengths, counts, widths, torch.cat(slots), order)
    return Scene(
        replace(shape, sinks=None if sinks is None else sinks.to(DEVICE)),
        query.to(DEVICE),
        torch.cat(new_keys).transpose(0, 1).to(DEVICE),
        torch.cat(new_values).transpose(0, 1).to(DEVICE),
        keys.to(DEVICE),
        values.to(DEVICE),
        tables,
        torch.cat(expected),
    )


def empty_scene(layer: Layer) -> Scene:
    """Makes a step that nothing computes: one sequence with a single query and one with several, on the CPU."""

    def some(*sizes: int) -> Tensor:
        return torch.empty(*sizes, dtype=layer.dtype)

    one = torch.zeros(1, dtype=torch.int32)
    sinks = some(layer.heads) if layer.has_sinks else None
    return Scene(
        Shape(0, layer.key_dim**-0.5, layer.window, layer.softcap, sinks),
        some(8, layer.heads, layer.key_dim),
        some(layer.kv_heads, 8, layer.key_dim),
        some(layer.kv_heads, 8, layer.value_dim),
        some(4, layer.block_size, layer.kv_heads, layer.key_dim),
        some(4, layer.block_size, layer.kv_heads, layer.value_dim),
        Tables(one, one, one, one, 1, one, one, one),
        some(0),
    )


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Tells whether all numbers are what they should be, but for rounding."""
    return bool((found.double().cpu() - expected).abs().max() <= TOLERANCES[found.dtype] * expected.abs().max())


def _tables(
    lengths: Sequence[int], counts: Sequence[int], widths: Sequence[int], slots: Tensor, blocks: Tensor
) -> Tables:
    single_count = next((index for index, count in enumerate(counts) if count > 1), len(counts))
    starts = torch.tensor([0, *counts]).cumsum(0)
    tiles = [
        (index, begin) for index in range(single_count, len(counts)) for begin in range(0, counts[index], QUERY_TILE)
    ]

    def column(numbers: Tensor) -> Tensor:
        return numbers.to(torch.int32).to(DEVICE)

    return Tables(
        slots=column(slots),
        kv_lengths=column(torch.tensor(lengths)),
        block_starts=column(torch.tensor([0, *widths]).cumsum(0)[:-1]),
        blocks=column(blocks),
        single_count=single_count,
        query_starts=column(starts),
        tile_sequences=column(torch.tensor([index for index, _ in tiles])),
        tile_begins=column(torch.tensor([begin for _, begin in tiles])),
    )


def _attended(shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    group = query.shape[1] // keys.shape[1]
    keys, values = (each.double().repeat_interleave(group, 1) for each in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.double(), keys) * shape.scale
    if shape.softcap is not None:
        scores = shape.softcap * torch.tanh(scores / shape.softcap)
    places, positions = torch.arange(len(keys)), torch.arange(len(keys) - len(query), len(keys))[:, None]
    is_seen = places <= positions
    if shape.window is not None:
        is_seen &= places > positions - shape.window
    scores = scores.masked_fill(~is_seen, -torch.inf)
    if shape.sinks is not None:
        sinks = shape.sinks.double().view(-1, 1, 1).expand(*scores.shape[:2], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., : len(keys)], values)
