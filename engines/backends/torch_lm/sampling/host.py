"""Chooses and scores tokens on the host. Rows that only have a temperature go together, others one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.backends.torch_lm.sampling.draws import is_filtered, number
from engines.backends.torch_lm.sampling.invert import BLOCK, block_sums
from engines.backends.torch_lm.sampling.kept import Kept, kept, running_sums
from engines.backends.torch_lm.sampling.leading import leading
from engines.batching.batch import Draw


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """See `Place.largest`."""
    ids = torch.from_numpy(scores.numpy().argmax(axis=-1))  # ten times faster than torch's
    return scores.gather(1, ids.unsqueeze(1)).squeeze(1), ids


@np.errstate(over="ignore")  # what is beyond float32 is -inf, as it should be
def choose(scores: Tensor, rows: Sequence[int], draws: Sequence[Draw], best: Tensor) -> Tensor:
    """See `Place.choose`."""
    tokens = np.zeros(len(rows), dtype=np.int64)
    table, highest = scores.numpy(), best.tolist()
    plain = []
    for place, (row, draw) in enumerate(zip(rows, draws, strict=True)):
        if not math.isfinite(highest[row]):
            continue
        if is_filtered(draw.sampling):
            tokens[place] = _drawn(kept(table[row], highest[row], draw.sampling), number(draw))
        else:
            plain.append(place)
    if plain:
        which = [rows[place] for place in plain]
        tokens[plain] = _by_temperature(_taken(scores, which), [draws[place] for place in plain], _taken(best, which))
    return torch.from_numpy(tokens)


@np.errstate(over="ignore")
def score(scores: Tensor, rows: Sequence[int], tokens: Tensor, tops: Sequence[int], best: Tensor) -> Tensor:
    """See `Place.score`."""
    most = max(tops)
    packed = np.full((len(rows), 3 + 2 * most), np.nan)
    table, highest = scores.numpy(), best.tolist()
    for place, (row, token, top) in enumerate(zip(rows, tokens.tolist(), tops, strict=True)):
        if not math.isfinite(highest[row]):
            continue
        values = table[row]
        found = leading(values, top)
        found = found[np.argsort(-values[found], kind="stable")]
        packed[place, :3] = _log_total(values, highest[row]), values[token], _rank(values, token, found)
        packed[place, 3 : 3 + len(found)] = found
        packed[place, 3 + most : 3 + most + len(found)] = values[found]
    return torch.from_numpy(packed)


def _by_temperature(scores: Tensor, draws: Sequence[Draw], best: Tensor) -> NDArray[np.int64]:
    """Does what `invert` does; on few rows and small blocks numpy is several times faster than torch."""
    temperatures = np.array([[draw.sampling.temperature] for draw in draws])
    numbers = np.array([[number(draw)] for draw in draws])
    scales = (1 / temperatures).astype(np.float32)
    is_scaled = bool((temperatures != 1).any())
    sums = block_sums(scores, best.unsqueeze(1), torch.from_numpy(scales) if is_scaled else None).numpy()
    rows = np.arange(len(draws))[:, None]
    reached = sums.astype(np.float64).cumsum(1)
    target = numbers * reached[:, -1:]
    block = _first_above(reached, target)
    begin = np.where(block > 0, reached[rows, block - 1], 0.0)
    ids = block * BLOCK + np.arange(BLOCK)
    values = scores.numpy()[rows, np.minimum(ids, scores.shape[1] - 1)]
    weights = np.exp(((values - best.numpy()[:, None]) * scales).astype(np.float64))
    reached = np.where(ids < scores.shape[1], weights, 0.0).cumsum(1)
    target = (target - begin) / sums[rows, block] * reached[:, -1:]
    tokens: NDArray[np.int64] = (block * BLOCK + _first_above(reached, target))[:, 0]
    return tokens


def _first_above(reached: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.int64]:
    # The target may have been rounded up to the total, behind which there is nothing: the last with a weight is meant.
    found: NDArray[np.int64] = np.minimum((reached <= target).sum(1), (reached < reached[:, -1:]).sum(1))[:, None]
    return found


def _taken(scores: Tensor, rows: Sequence[int]) -> Tensor:
    is_run = rows[-1] - rows[0] == len(rows) - 1
    return scores[rows[0] : rows[-1] + 1] if is_run else scores[list(rows)]


def _drawn(tokens: Kept, share: float) -> int:
    reached = running_sums(tokens.weights)
    place = np.searchsorted(reached, share * reached[-1], side="right")
    # The product may have been rounded up to the total, behind which there is nothing.
    return int(tokens.ids[min(place, np.searchsorted(reached, reached[-1]))])


def _log_total(values: NDArray[np.float32], best: float) -> float:
    return best + float(np.log(np.exp(values - np.float32(best)).sum()))


def _rank(values: NDArray[np.float32], token: int, found: NDArray[np.int64]) -> int:
    """Returns the token's place among all, from 1; of equals the lowest id comes first. `found` are the first ones."""
    near = np.flatnonzero(found == token)
    if len(near):
        return int(near[0]) + 1
    above, equal = np.count_nonzero(values > values[token]), np.count_nonzero(values[:token] == values[token])
    return int(1 + above + equal)
