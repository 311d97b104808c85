"""Finds the largest of many numbers, of equals those that come first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def leading(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Returns where the `count` largest values are, in order of place; of equals, the first. No value is a NaN."""
    if count == 0 or count >= len(values):
        return np.arange(min(count, len(values)))
    width = max(1024, 8 * count)
    depth = len(values) // width
    if depth < 2:
        return _leading(values, count)
    # The highest of each column come first: `count` columns reach at least so high, hence all that are wanted do.
    # Looking closely only at those is two to three times faster.
    highest = values[: depth * width].reshape(depth, width).max(axis=0)
    near = np.flatnonzero(values >= _last(highest, count))
    return near[_leading(values[near], count)]


def _leading(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    if count == len(values):
        return np.arange(count)
    last = _last(values, count)
    kept = np.flatnonzero(values >= last)
    surplus = len(kept) - count
    if surplus:
        equal = np.flatnonzero(values[kept] == last)
        kept = np.delete(kept, equal[len(equal) - surplus :])
    return kept


def _last(values: NDArray[Any], count: int) -> Any:
    """Returns the last of the `count` largest values."""
    return np.partition(values, len(values) - count)[len(values) - count]
