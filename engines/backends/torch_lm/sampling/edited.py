"""Applies edits to logits, on whatever device they are, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.backends.torch_lm.sampling.edits import Edits
from engines.backends.torch_lm.sampling.upload import upload


def apply(scores: Tensor, edits: Sequence[Edits]) -> None:
    """Changes each row of the scores in place; what is forbidden becomes -inf.

    scores: [rows, vocabulary], float32, contiguous.
    """
    flat = scores.view(-1)
    biased, biases = _flat(scores, [(each.biased, each.biases) for each in edits])
    if len(biased):
        flat.index_add_(0, biased, biases)
    penalized, factors = _flat(scores, [(each.penalized, each.factors) for each in edits])
    if len(penalized):
        _, minus = _flat(scores, [(each.penalized, each.minus) for each in edits])
        values = flat.index_select(0, penalized)
        values = torch.where(values > 0, values / factors, values * factors) - minus
        flat.index_copy_(0, penalized, values)
    forbidden, limits = _flat(scores, [(each.forbidden, np.full(len(each.forbidden), -np.inf)) for each in edits])
    if len(forbidden):
        flat.index_copy_(0, forbidden, limits)
    if any(each.mask is not None for each in edits):
        _mask(scores, [each.mask for each in edits])


def _flat(scores: Tensor, rows: Sequence[tuple[NDArray[np.int64], NDArray[np.floating]]]) -> tuple[Tensor, Tensor]:
    """Returns where the ids of all rows are in the flattened scores, and their values."""
    width = scores.shape[1]
    places = np.concatenate([ids + row * width for row, (ids, _) in enumerate(rows)])
    values = np.concatenate([values for _, values in rows], dtype=np.float32)
    return upload(places, scores.device), upload(values, scores.device)


def _mask(scores: Tensor, masks: Sequence[bytes | None]) -> None:
    size = -(-scores.shape[1] // 8)
    packed = b"".join(b"\xff" * size if mask is None else mask for mask in masks)
    places = upload(np.frombuffer(packed, dtype=np.uint8).astype(np.int32), scores.device).view(len(masks), size)
    limits = _limits(scores.device)
    step = len(masks) if scores.is_cuda else 1
    for first in range(0, len(masks), step):
        rows = scores[first : first + step]
        # Eight limits for each byte, looked up at once: ten times faster than to unpack bits and fill by them.
        found = limits.index_select(0, places[first : first + step].flatten()).view(len(rows), -1)
        torch.minimum(rows, found[:, : rows.shape[1]], out=rows)


@cache
def _limits(device: torch.device) -> Tensor:
    """Returns for each byte the highest that each of its eight ids may have."""
    bits = torch.arange(256).unsqueeze(1) >> torch.arange(8)
    return torch.where(bits & 1 == 1, torch.inf, -torch.inf).to(device, torch.float32)
