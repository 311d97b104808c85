"""Which tokens of a row top_k, top_p, typical_p and min_p keep. One row at a time, on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engines.backends.torch_lm.sampling.leading import leading
from engines.model import Sampling

_SAFE = 0.999  # what is left out at first is certain to be left out: float32 errs by far less
_LEAST = float(np.finfo(np.float32).tiny)  # less weight than this is none


class Kept(NamedTuple):
    """Tokens that may be drawn, in the order of ids."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]  # the largest of the whole row is 1


def kept(row: NDArray[np.float32], best: float, sampling: Sampling) -> Kept:
    """Applies the four in this order, each to what the one before has left; of equals the lowest ids are kept.

    row: [vocabulary], scores before temperature; best: the largest of them, finite.
    top_p keeps the fewest tokens whose share reaches it: Holtzman et al. 2020, arXiv:1904.09751.
    typical_p keeps, nearest first, those whose surprise is nearest to the entropy, until their share reaches it:
    Meister et al. 2022, arXiv:2202.00666. min_p keeps what has at least this share of the likeliest's weight:
    Nguyen et al. 2024, arXiv:2407.01082.
    Weights are float32 and added up in float64. A token at whose place the share is within 1e-6 of top_p or typical_p
    may fall on either side, always on the same.
    """
    if 0 < sampling.top_k < len(row):
        ids = leading(row, sampling.top_k)
        weights = _weights(row[ids], best, sampling.temperature)
        tokens = _only(Kept(ids, weights), weights >= _LEAST)
        total = float(tokens.weights.sum(dtype=np.float64))
    else:
        tokens, total = _considered(row, best, sampling)
    if sampling.top_p < 1:
        tokens = _nucleus(tokens, sampling.top_p * total)
    if sampling.typical_p < 1:
        tokens = _typical(tokens, sampling.typical_p)
    if sampling.min_p > 0:
        tokens = _only(tokens, tokens.weights >= np.float32(sampling.min_p) * tokens.weights.max())
    return tokens


def running_sums(weights: NDArray[Any]) -> NDArray[np.float64]:
    """Returns for each place the sum up to it."""
    sums: NDArray[np.float64] = torch.from_numpy(weights).cumsum(0, dtype=torch.float64).numpy()  # numpy's is slower
    return sums


def _weights(scores: NDArray[np.float32], best: float, temperature: float) -> NDArray[np.float32]:
    weights = np.subtract(scores, np.float32(best))
    weights *= np.float32(1 / temperature)
    return np.exp(weights, out=weights)


def _considered(row: NDArray[np.float32], best: float, sampling: Sampling) -> tuple[Kept, float]:
    """Returns the tokens that any rule can keep, and the weight of the whole row. Real rows have thousands of others.

    All tokens that are less likely than (1 - top_p) / vocabulary have less than 1 - top_p together, so the others
    reach top_p without them.
    """
    weights = _weights(row, best, sampling.temperature)
    total = float(weights.sum())
    least = 0.0
    if sampling.top_p < 1:
        least = (1 - sampling.top_p) / len(row) * total
    elif sampling.typical_p == 1:
        least = sampling.min_p
    ids = np.flatnonzero(weights >= np.float32(max(least * _SAFE, _LEAST)))
    return Kept(ids, weights[ids]), total


def _nucleus(tokens: Kept, enough: float) -> Kept:
    reached = running_sums(np.sort(tokens.weights)[::-1].copy())
    return _only(tokens, leading(tokens.weights, int(np.searchsorted(reached, enough)) + 1))


def _typical(tokens: Kept, typical_p: float) -> Kept:
    shares = tokens.weights / tokens.weights.sum(dtype=np.float64)
    surprise = -np.log(shares)
    distance = np.abs(surprise - (shares * surprise).sum())
    reached = running_sums(shares[np.argsort(distance)])
    return _only(tokens, leading(-distance, int(np.searchsorted(reached, typical_p)) + 1))


def _only(tokens: Kept, which: NDArray[np.int64] | NDArray[np.bool_]) -> Kept:
    return Kept(tokens.ids[which], tokens.weights[which])
