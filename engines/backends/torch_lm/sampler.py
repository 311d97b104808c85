"""Chooses tokens. What a row gives depends on its logits, its seed and its position alone, never on the batch."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from engines.batching.batch import Draw

_CHOICE = 0  # of several answers to one prompt; there is one so far


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int | Exception]:
    """Draws one token for each row.

    logits: [rows, vocabulary], before temperature. Temperature 0 takes the largest logit, ties go to the lowest id.
    A row without a finite largest logit gives a ValueError in its place.
    """
    best, greedy = logits.max(dim=-1)
    is_finite = best.isfinite().tolist()
    tokens: list[int | Exception] = list(greedy.tolist())
    rows = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0 and is_finite[row]]
    if rows:
        for row, token in zip(rows, _sample(logits[rows], [draws[row] for row in rows]), strict=True):
            tokens[row] = token
    return [
        token if is_finite[row] else ValueError("the logits are not finite numbers") for row, token in enumerate(tokens)
    ]


def uniform(seed: int, choice: int, position: int) -> float:
    """Returns a number in [0, 1) that is a function of its arguments alone, on every machine."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, choice, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Inverts the cumulative distribution, in the order of ids.

    In float64: what the order of a sum changes in it is far too small to decide a token.
    """

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device).unsqueeze(1)

    scores = logits.double()
    # The largest becomes 0 before the division, so that no temperature overflows.
    scores = (scores - scores.amax(dim=-1, keepdim=True)) / column([draw.sampling.temperature for draw in draws])
    if any(draw.sampling.top_k or draw.sampling.top_p < 1 for draw in draws):
        top_k = column([draw.sampling.top_k or scores.shape[1] for draw in draws])
        scores = _filtered(scores, top_k, column([draw.sampling.top_p for draw in draws]))
    reached = scores.exp().cumsum(dim=-1)
    total = reached[:, -1:].contiguous()
    numbers = column([uniform(draw.sampling.seed, _CHOICE, draw.position) for draw in draws])
    found = torch.searchsorted(reached, numbers * total, right=True)
    # The product may round up to the total, behind which there is nothing: the last token with a weight is meant then.
    return torch.minimum(found, torch.searchsorted(reached, total)).squeeze(1).tolist()


def _filtered(scores: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Keeps the `top_k` likeliest tokens, and of those the fewest whose probability reaches `top_p`."""
    ordered, ids = scores.sort(dim=-1, descending=True, stable=True)  # stable: of equals, the lowest id is kept
    rank = torch.arange(scores.shape[1], device=scores.device)
    ordered = ordered.masked_fill(rank >= top_k, -torch.inf)
    weights = ordered.softmax(dim=-1)
    ordered = ordered.masked_fill((weights.cumsum(dim=-1) - weights >= top_p) & (rank > 0), -torch.inf)
    return torch.empty_like(scores).scatter_(1, ids, ordered)
