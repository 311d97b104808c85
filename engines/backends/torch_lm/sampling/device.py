"""Chooses and scores tokens in plain torch, all rows at once. Never waits for the device, whatever the values are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines.backends.torch_lm.sampling.draws import is_filtered, number
from engines.backends.torch_lm.sampling.invert import invert
from engines.backends.torch_lm.sampling.upload import columns, upload
from engines.batching.batch import Draw


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """See `Place.largest`."""
    best, ids = scores.max(dim=-1)
    return best, ids


def choose(scores: Tensor, rows: Sequence[int], draws: Sequence[Draw], best: Tensor) -> Tensor:
    """See `Place.choose`. Rows with filters are sorted whole."""
    which = upload(np.array(rows, dtype=np.int64), scores.device)
    settings = [draw.sampling for draw in draws]
    scales, numbers, top_k, top_p, typical_p, min_p = columns(
        [
            [1 / each.temperature for each in settings],
            [number(draw) for draw in draws],
            [each.top_k or scores.shape[1] for each in settings],
            [each.top_p for each in settings],
            [each.typical_p for each in settings],
            [each.min_p for each in settings],
        ],
        scores.device,
    )
    scores, best = scores.index_select(0, which), best.index_select(0, which).unsqueeze(1)
    if not any(is_filtered(each) for each in settings):
        return invert(scores, best, scales.float(), numbers)
    scores = (scores - best) * scales.float()
    if any(each.top_k > 0 or each.top_p < 1 for each in settings):
        scores = _first(scores, top_k, top_p)
    if any(each.typical_p < 1 for each in settings):
        scores = _typical(scores, typical_p)
    if any(each.min_p > 0 for each in settings):
        scores = scores.masked_fill(scores < scores.amax(-1, keepdim=True) + min_p.log().float(), -torch.inf)
    best = scores.amax(-1, keepdim=True)
    return invert(scores, best, torch.ones_like(best), numbers, is_scaled=False)


def score(
    scores: Tensor,
    rows: Sequence[int],
    tokens: Tensor,
    tops: Sequence[int],
    best: Tensor,  # noqa: ARG001 - the host needs it
) -> Tensor:
    """See `Place.score`."""
    which = upload(np.array(rows, dtype=np.int64), scores.device)
    scores, ids = scores.index_select(0, which), tokens.unsqueeze(1)
    chosen = scores.gather(1, ids)
    is_before = torch.arange(scores.shape[1], device=scores.device) < ids
    rank = 1 + ((scores > chosen) | ((scores == chosen) & is_before)).sum(-1, keepdim=True)
    packed = [scores.logsumexp(-1, keepdim=True), chosen, rank]
    if max(tops):
        found = _keys(scores).topk(max(tops), dim=-1).indices
        packed += [found, scores.gather(1, found)]
    return torch.cat([part.double() for part in packed], dim=1)


def _keys(scores: Tensor) -> Tensor:
    """Returns numbers in the order of the scores, of equals the lowest id first: `topk` promises no order of equals.

    A float32 written in float64 leaves 29 bits at its end; they take the id.
    """
    ids = torch.arange(scores.shape[1], device=scores.device)
    wide = scores.double().clamp(min=torch.finfo(torch.float32).min) + 0.0  # -inf has no room, and -0 is no 0
    return (wide.view(torch.int64) + torch.where(wide < 0, ids, (1 << 29) - 1 - ids)).view(torch.float64)


def _first(scores: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Keeps the `top_k` likeliest tokens, and of those the fewest whose share reaches `top_p`."""
    ordered, ids = scores.sort(dim=-1, descending=True, stable=True)  # stable: of equals the lowest ids are kept
    rank = torch.arange(scores.shape[1], device=scores.device)
    ordered = ordered.masked_fill(rank >= top_k, -torch.inf)
    return torch.empty_like(scores).scatter_(1, ids, _until(ordered, ordered.softmax(-1), top_p))


def _typical(scores: Tensor, typical_p: Tensor) -> Tensor:
    """Keeps the tokens whose surprise is nearest to the entropy, until their share reaches `typical_p`."""
    shares = scores.softmax(-1)
    surprise = -shares.log()
    entropy = (shares * surprise).nansum(-1, keepdim=True)  # a share of 0 adds nothing
    ids = (surprise - entropy).abs().sort(dim=-1, stable=True).indices
    return torch.empty_like(scores).scatter_(1, ids, _until(scores.gather(1, ids), shares.gather(1, ids), typical_p))


def _until(ordered: Tensor, shares: Tensor, reach: Tensor) -> Tensor:
    """Keeps the first scores of each row until their shares reach `reach`, always one; 1 keeps all."""
    before = shares.cumsum(-1, dtype=torch.float64) - shares
    behind = (before >= reach) & (reach < 1)
    behind[:, 0] = False
    return ordered.masked_fill(behind, -torch.inf)
