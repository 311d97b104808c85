"""`python -m benchmarks.support.bandwidth`: prints how many bytes a second a large copy reads and writes."""

from __future__ import annotations

import time

import torch

_BYTES = 256 << 20  # many times what caches hold
_TRIES = 7


def copy_bandwidth() -> float:
    """Returns the best of some tries, on all threads that torch has: what is read and what is written."""
    source, target = torch.ones(_BYTES, dtype=torch.uint8), torch.zeros(_BYTES, dtype=torch.uint8)
    best_s = float("inf")
    for _ in range(_TRIES):
        begin_s = time.perf_counter()
        target.copy_(source)
        best_s = min(best_s, time.perf_counter() - begin_s)
    return 2 * _BYTES / best_s


if __name__ == "__main__":
    print(copy_bandwidth())
