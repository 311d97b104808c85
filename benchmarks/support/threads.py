"""How many threads a process computes with. OpenMP reads that once, before the first line of a program runs."""

from __future__ import annotations

import os
import sys

_VARIABLE = "OMP_NUM_THREADS"


def begin_with_threads(count: int) -> None:
    """Starts this program anew, in the same process, unless it was started with so many threads."""
    if os.environ.get(_VARIABLE) != str(count):
        os.environ[_VARIABLE] = str(count)
        os.execv(sys.executable, sys.orig_argv)
