"""Inverts the cumulative distribution of each row, in the order of ids, at a given number."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256  # ids whose weights are summed before any of them is looked at
SLICE = 1 << 18  # elements, a megabyte: what a core keeps near while it goes over them several times


def invert(scores: Tensor, best: Tensor, scale: Tensor, numbers: Tensor, *, is_scaled: bool = True) -> Tensor:
    """Returns for each row the first id up to which more than `number` of the probability lies; [rows], int64.

    scores: [rows, vocabulary], float32; best: [rows, 1], their largest; numbers: [rows, 1], float64, in [0, 1).
    The probability of an id is the softmax of (score - best) * scale; `is_scaled` says whether any scale is not 1.

    Weights are float32 and summed in blocks; only over blocks, and within the one that is meant, sums are float64. An
    error of 1e-6 of the whole moves the edge between two ids by so little; the same row always gives the same id.
    An id without weight never comes. Rows whose `best` is not finite give any id of the vocabulary.
    """
    sums = block_sums(scores, best, scale if is_scaled else None)
    reached = sums.double().cumsum(-1)
    target = numbers * reached[:, -1:]
    block = _first_above(reached, target)
    begin = reached.gather(1, (block - 1).clamp(min=0)).masked_fill(block == 0, 0.0)
    share = (target - begin) / sums.gather(1, block)
    width = scores.shape[1]
    ids = block * BLOCK + torch.arange(BLOCK, device=scores.device)
    weights = ((scores.gather(1, ids.clamp(max=width - 1)) - best) * scale).double()
    reached = weights.masked_fill(ids >= width, -torch.inf).softmax(-1).cumsum(-1)
    offset = _first_above(reached, share * reached[:, -1:])
    return (block * BLOCK + offset).clamp(max=width - 1).squeeze(1)


def block_sums(scores: Tensor, best: Tensor, scale: Tensor | None) -> Tensor:
    """Returns the shares of blocks of ids; [rows, blocks], float32. Each row's are the same whoever is beside it."""
    count, width = scores.shape
    whole, rest = divmod(width, BLOCK)
    sums = scores.new_empty(count, whole + bool(rest))
    most = count if scores.is_cuda else max(1, SLICE * torch.get_num_threads() // width)
    buffer = scores.new_empty(min(most, count), width)
    for first in range(0, count, most):
        part = slice(first, first + most)
        source = scores[part]
        weights = buffer[: source.shape[0]]
        if scale is not None:
            torch.sub(source, best[part], out=weights)
            source = weights.mul_(scale[part])
        torch.softmax(source, -1, out=weights)
        if whole:
            blocks = weights[:, : whole * BLOCK].reshape(-1, whole, BLOCK)  # a view
            sums[part, :whole] = blocks.sum(-1)
        if rest:
            sums[part, whole] = weights[:, whole * BLOCK :].sum(-1)
    return sums


def _first_above(reached: Tensor, target: Tensor) -> Tensor:
    """Returns the first place whose sum is above the target; [rows, 1]."""
    found = torch.searchsorted(reached, target, right=True)
    # The target may have been rounded up to the total, behind which there is nothing: the last with a weight is meant.
    last = torch.searchsorted(reached, reached[:, -1:].contiguous())
    return torch.minimum(found, last).clamp(max=reached.shape[1] - 1)
