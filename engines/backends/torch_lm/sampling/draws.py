"""What kind of choice a draw asks for."""

from __future__ import annotations

from engines.backends.torch_lm.sampling.uniform import uniform
from engines.batching.batch import Draw
from engines.model import Sampling

GREEDY_BELOW = 1e-5  # a temperature below it is 0, as in vLLM (v1/sample/sampler.py)


def is_random(sampling: Sampling) -> bool:
    """Whether chance decides; else the largest is taken, of equals the lowest id."""
    return sampling.temperature >= GREEDY_BELOW and sampling.top_k != 1


def is_filtered(sampling: Sampling) -> bool:
    """Whether some tokens are left out before chance decides."""
    return sampling.top_k > 0 or sampling.top_p < 1 or sampling.typical_p < 1 or sampling.min_p > 0


def number(draw: Draw) -> float:
    """Returns the random number that decides."""
    return uniform(draw.sampling.seed, draw.choice, draw.position)
