"""For which numbers of rows a step is captured. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

_SMALL = (1, 2, 4)
_STRIDE = 8
MOST_ROWS = 256  # beyond it launching costs little beside computing


def buckets(batch_size: int) -> tuple[int, ...]:
    """Returns the captured numbers of rows, smallest first; the largest holds a full batch, if that is captured."""
    most = min(batch_size, MOST_ROWS)
    full = -(-most // _STRIDE) * _STRIDE
    sizes = [*_SMALL, *range(_STRIDE, full + 1, _STRIDE)]
    return tuple(sizes[: bisect_left(sizes, most) + 1])


def bucket_of(count: int, sizes: Sequence[int]) -> int | None:
    """Returns the smallest size that holds so many rows; None if there is none."""
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else None
