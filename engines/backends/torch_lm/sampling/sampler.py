"""Answers what a step asks of its logits: which token comes next, and how likely tokens were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engines.backends.torch_lm.sampling import device, host
from engines.backends.torch_lm.sampling.answers import Part, Underway
from engines.backends.torch_lm.sampling.buffer import Buffer
from engines.backends.torch_lm.sampling.draws import is_random
from engines.backends.torch_lm.sampling.edited import apply
from engines.backends.torch_lm.sampling.edits import Edits, edits, is_edited
from engines.backends.torch_lm.sampling.history import Histories
from engines.backends.torch_lm.sampling.place import Place
from engines.backends.torch_lm.sampling.upload import upload
from engines.batching.batch import Ask, Draw

_HOST_PART, _DEVICE_PART = 1 << 22, 1 << 24  # logits that are answered at a time: bounds the memory for copies of them


class Sampler:
    """Draws tokens and scores them. One thread at a time.

    For each row, in this order (`engines.model.Sampling` names it): biases and penalties, what is forbidden (`edits`);
    then the largest, or by chance: temperature, top_k, top_p, typical_p, min_p (`kept`), and the first id, in the
    order of ids, up to which more than the draw's random number of the probability lies (`invert`). Logprobs are those
    of the model's logits, before all that, as in vLLM (v1/sample/sampler.py).
    """

    def __init__(self, place: Place | None = None) -> None:
        """`place` computes; None chooses by where the logits are."""
        self._place = place
        self._histories = Histories()
        self._floats, self._edited = Buffer(), Buffer()

    @torch.inference_mode()
    def sample(self, logits: Tensor, asks: Sequence[Ask | None]) -> Underway:
        """Answers what is asked of each row; does not wait for the device.

        logits: [asks, vocabulary], any floating type; not changed. A row whose logits are no numbers, whose mask is
        malformed or of which everything is forbidden (NothingAllowed) gives a ValueError in its place.
        """
        assert logits.shape[0] == len(asks)
        size = max(1, (_DEVICE_PART if logits.is_cuda else _HOST_PART) // logits.shape[1])
        starts = range(0, len(asks), size)
        parts = [self._part(logits[first : first + size], asks[first : first + size]) for first in starts]
        return Underway(parts, logits.device)

    def _part(self, logits: Tensor, asks: Sequence[Ask | None]) -> Part:
        place = self._place or (device if logits.is_cuda else host)
        scores = logits
        if logits.dtype != torch.float32:
            scores = self._floats.rows(logits.shape[0], logits.shape[1], logits.device).copy_(logits)
        asked = self._sorted(asks, scores.shape[1])
        highest, tokens = _chosen(place, scores, asked.plain)
        best = highest
        if asked.edits:
            rows = _index(asked.edits, scores)
            edited = self._edited.rows(len(rows), scores.shape[1], scores.device)
            torch.index_select(scores, 0, rows, out=edited)
            apply(edited, list(asked.edits.values()))
            found = _chosen(place, edited, dict(enumerate(asked.edited)))
            best, tokens = best.index_copy(0, rows, found[0]), tokens.index_copy(0, rows, found[1])
        if asked.given:
            tokens = tokens.index_copy(0, _index(asked.given, scores), _index(asked.given.values(), scores))
        likelihoods = None
        if asked.tops:
            wanted = tokens.index_select(0, _index(asked.tops, scores))
            likelihoods = place.score(scores, list(asked.tops), wanted, list(asked.tops.values()), highest)
        return Part(asks, tokens, best, list(asked.tops), likelihoods, asked.errors)

    def _sorted(self, asks: Sequence[Ask | None], vocabulary_size: int) -> _Asked:
        asked = _Asked()
        for row, ask in enumerate(asks):
            if ask is None:
                continue
            if not isinstance(ask, Draw):
                asked.given[row] = ask.token
            elif not is_edited(ask):
                asked.plain[row] = ask
            else:
                try:
                    asked.edits[row] = edits(ask, vocabulary_size, self._histories)
                    asked.edited.append(ask)
                except Exception as error:  # noqa: BLE001 - the request is told
                    asked.errors[row] = error
            if ask.top is not None:
                asked.tops[row] = min(ask.top, vocabulary_size)
        return asked


@dataclass(slots=True)
class _Asked:
    """What is asked, by row."""

    plain: dict[int, Draw] = field(default_factory=dict)  # of the logits as they are
    edits: dict[int, Edits] = field(default_factory=dict)
    edited: list[Draw] = field(default_factory=list)  # beside the edits
    given: dict[int, int] = field(default_factory=dict)  # tokens that were not drawn
    tops: dict[int, int] = field(default_factory=dict)  # likelihoods
    errors: dict[int, Exception] = field(default_factory=dict)


def _chosen(place: Place, scores: Tensor, draws: Mapping[int, Draw]) -> tuple[Tensor, Tensor]:
    """Returns the largest score of each row, and its id, or for a draw by chance the id that it gives."""
    best, tokens = place.largest(scores)
    random = {row: draw for row, draw in draws.items() if is_random(draw.sampling)}
    if random:
        drawn = place.choose(scores, list(random), list(random.values()), best)
        tokens = tokens.index_copy(0, _index(random, scores), drawn)
    return best, tokens


def _index(numbers: Iterable[int], beside: Tensor) -> Tensor:
    return upload(np.fromiter(numbers, dtype=np.int64), beside.device)
