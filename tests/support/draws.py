"""Draws that say only what a test is about, and kinds of them for mixed batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from engines.backends.torch_lm.sampling.place import Place
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.batching.batch import Draw
from engines.model import Sampled, Sampling

KINDS: Sequence[Mapping[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"top_k": 20},
    {"top_p": 0.8},
    {"temperature": 2.0, "top_k": 50, "top_p": 0.9},
    {"temperature": 0.7, "top": 3},
    {"typical_p": 0.7},
    {"min_p": 0.02, "temperature": 1.5},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.1, "ids": [1, 2, 3, 2, 5], "prompt_count": 2},
    {"temperature": 0.0, "presence_penalty": 1.0, "ids": [1, 2, 3, 2, 5], "prompt_count": 2, "top": 0},
]


def draw(position: int = 0, **settings: Any) -> Draw:
    """Settings are those of a Draw and of a Sampling, by name."""
    of_draw = {name: settings.pop(name) for name in list(settings) if name in Draw.__dataclass_fields__}
    return Draw(Sampling(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0, **settings}), position, **of_draw)


def mixed(count: int) -> list[Draw]:
    """Returns draws of all kinds, each with a seed and a position of its own."""
    return [draw(row, seed=row, **KINDS[row % len(KINDS)]) for row in range(count)]


def tokens(
    logits: Sequence[Sequence[float]] | torch.Tensor, draws: Sequence[Draw], place: Place | None = None
) -> list[int]:
    """Returns the tokens that are drawn, where all can be."""
    answers = Sampler(place).sample(torch.as_tensor(logits), draws).wait()
    assert all(isinstance(answer, Sampled) for answer in answers), answers
    return [answer.token for answer in answers if isinstance(answer, Sampled)]
