"""What a request changes in its logits before a token is chosen: biases, penalties, and what is forbidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.backends.torch_lm.sampling.history import Histories
from engines.batching.batch import Draw
from engines.model import Sampling

FORBIDS = -100.0  # a bias of so much is not added: it forbids


@dataclass(frozen=True, slots=True)
class Edits:
    """The changes to one row, in their order. Ids stand at most once in each array, and are within the vocabulary."""

    biased: NDArray[np.int64]
    biases: NDArray[np.float32]  # added
    penalized: NDArray[np.int64]
    factors: NDArray[np.float32]  # positive scores are divided by it, negative ones multiplied
    minus: NDArray[np.float32]  # subtracted after that
    forbidden: NDArray[np.int64]  # become -inf
    mask: bytes | None  # so does each id whose bit is 0


def is_edited(draw: Draw) -> bool:
    """Whether a draw changes its logits at all."""
    sampling = draw.sampling
    return bool(
        draw.mask is not None
        or _is_penalized(sampling)
        or sampling.logit_bias
        or sampling.bad_words
        or draw.position < sampling.min_tokens
    )


def edits(draw: Draw, vocabulary_size: int, histories: Histories) -> Edits:
    """Returns what a draw changes.

    The order is that of vLLM (v1/sample/sampler.py) and transformers (generation/utils.py): biases come before
    penalties. Repetition counts prompt and output, presence and frequency the output alone, as in vLLM
    (model_executor/layers/utils.py, `apply_penalties`).
    Raises ValueError if the mask is not one for this vocabulary.
    """
    if draw.mask is not None and len(draw.mask) != -(-vocabulary_size // 8):
        raise ValueError(f"a mask of {len(draw.mask)} bytes is not one for {vocabulary_size} ids")
    added = [(token, bias) for token, bias in draw.sampling.logit_bias if bias > FORBIDS and token < vocabulary_size]
    forbidden = {token for token in _forbidden(draw) if token < vocabulary_size}
    return Edits(
        np.array([token for token, _ in added], dtype=np.int64),
        np.array([bias for _, bias in added], dtype=np.float32),
        *_penalties(draw, vocabulary_size, histories),
        np.fromiter(forbidden, dtype=np.int64),
        draw.mask,
    )


def _is_penalized(sampling: Sampling) -> bool:
    return sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0


def _penalties(
    draw: Draw, vocabulary_size: int, histories: Histories
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    sampling = draw.sampling
    if not _is_penalized(sampling):
        none = np.empty(0, dtype=np.float32)
        return np.empty(0, dtype=np.int64), none, none
    ids, total, output = histories.counts(draw)
    factors = np.where(total > 0, sampling.repetition_penalty, 1.0).astype(np.float32)
    minus = (output * sampling.frequency_penalty + (output > 0) * sampling.presence_penalty).astype(np.float32)
    touched = np.flatnonzero(((factors != 1) | (minus != 0)) & (ids < vocabulary_size))
    return ids[touched], factors[touched], minus[touched]


def _forbidden(draw: Draw) -> Sequence[int]:
    """Returns the ids that may not come next, whatever the grammar says.

    A bad word counts where all of it is in the output, as in vLLM (v1/sample/ops/bad_words.py).
    """
    sampling = draw.sampling
    ids = [token for token, bias in sampling.logit_bias if bias <= FORBIDS]
    if draw.position < sampling.min_tokens:
        ids += draw.end_ids
    for *before, last in sampling.bad_words:
        if len(before) <= draw.position and list(draw.ids[len(draw.ids) - len(before) :]) == before:
            ids.append(last)
    return ids
