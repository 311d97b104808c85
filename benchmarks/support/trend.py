"""The straight line through a series, by least squares. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trend:
    """How much a value grows for each unit of time, how sure that is, and how much of the series it explains."""

    slope: float
    slope_error: float  # standard error; of two points none is known: NaN
    start: float  # at time 0
    explained_fraction: float  # R²; 1 if all values are equal


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Returns the line; raises ValueError for fewer than two times that differ."""
    count = len(times)
    if len(set(times)) < 2:
        raise ValueError("a line takes two points")
    time, value = math.fsum(times) / count, math.fsum(values) / count
    spread = math.fsum((each - time) ** 2 for each in times)
    slope = math.fsum((at - time) * (each - value) for at, each in zip(times, values, strict=True)) / spread
    start = value - slope * time
    left = math.fsum((each - start - slope * at) ** 2 for at, each in zip(times, values, strict=True))
    whole = math.fsum((each - value) ** 2 for each in values)
    error = math.sqrt(left / (count - 2) / spread) if count > 2 else math.nan
    return Trend(slope, error, start, 1 - left / whole if whole else 1.0)
