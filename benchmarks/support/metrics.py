"""What a run says about an engine. Pure; needs nothing but Python.

The first token's time counts from when its request came. The time per token of a request is what its other tokens took,
by their number. Tokens per second are all output tokens by the time from the first request to the last token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.support.wire import Outcome, Request


@dataclass(frozen=True, slots=True)
class Goal:
    """What a user would call good."""

    first_token_s: float
    token_s: float


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a decode step has to read."""

    weights: int  # all that a token passes through, once for the whole step
    token: int  # keys and values of one token of one sequence

    def step(self, sequences: int, context: float) -> float:
        """Returns the bytes of a step of so many sequences with so many tokens each."""
        return self.weights + sequences * context * self.token


@dataclass(frozen=True, slots=True)
class Served:
    """One request of a run."""

    at_s: float
    first_s: float
    last_s: float
    token_count: int

    @property
    def first_token_s(self) -> float:
        """How long the first token took."""
        return self.first_s - self.at_s

    @property
    def token_s(self) -> float | None:
        """How long each of the others took; None if there is none."""
        return (self.last_s - self.first_s) / (self.token_count - 1) if self.token_count > 1 else None

    def is_good(self, goal: Goal) -> bool:
        """Tells whether a user would be content."""
        return self.first_token_s <= goal.first_token_s and (self.token_s or 0.0) <= goal.token_s


@dataclass(frozen=True, slots=True)
class Figures:
    """One run in figures."""

    tokens_per_s: float
    tokens_per_cpu_s: float
    first_token_p50_s: float
    first_token_p99_s: float
    token_p50_s: float
    token_p99_s: float
    gap_p99_s: float  # between a token and the next of the same request
    good_per_s: float  # requests that a user would be content with
    good_fraction: float


def served(requests: Sequence[Request], outcome: Outcome) -> list[Served]:
    """Returns the requests of a run. Raises ValueError if one has more or fewer tokens than were asked for."""
    counts = [len(times) for times in outcome.token_times_s]
    if counts != [request.output_count for request in requests]:
        raise ValueError(f"{sum(counts)} tokens came, not {sum(request.output_count for request in requests)}")
    pairs = zip(requests, outcome.token_times_s, strict=True)
    return [Served(request.at_s, times[0], times[-1], len(times)) for request, times in pairs]


def figures(requests: Sequence[Request], outcome: Outcome, goal: Goal) -> Figures:
    """Returns the figures of a run. Raises ValueError as `served` does."""
    each = served(requests, outcome)
    token_count = sum(one.token_count for one in each)
    elapsed_s = max(one.last_s for one in each) - min(one.at_s for one in each)
    first_s = [one.first_token_s for one in each]
    token_s = [one.token_s for one in each if one.token_s is not None]
    gaps_s = [later - earlier for times in outcome.token_times_s for earlier, later in pairwise(times)]
    good_count = sum(one.is_good(goal) for one in each)
    return Figures(
        tokens_per_s=token_count / elapsed_s,
        tokens_per_cpu_s=token_count / outcome.cpu_s if outcome.cpu_s else math.nan,
        first_token_p50_s=percentile(first_s, 50),
        first_token_p99_s=percentile(first_s, 99),
        token_p50_s=percentile(token_s, 50),
        token_p99_s=percentile(token_s, 99),
        gap_p99_s=percentile(gaps_s, 99),
        good_per_s=good_count / elapsed_s,
        good_fraction=good_count / len(each),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the value that so many percent are not above, between two of them by where it lies; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def roofline_fraction(read: Bytes, sequences: int, prompt: int, output: int, token_s: float, bandwidth: float) -> float:
    """Returns which share of a decode step the memory alone would take, at `bandwidth` bytes a second."""
    context = prompt + (output + 1) / 2  # over all steps, on average
    return read.step(sequences, context) / bandwidth / token_s
