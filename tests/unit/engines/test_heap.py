"""What the allocator gives back, in a process of its own: its settings are those of a whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest

MIB = 1 << 20
# As while a model is loaded: pieces of a MiB come and go, and between any two stays something small.
CHURN = """
import contextlib, sys
from pathlib import Path
from engines.heap import frugal_heap

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

bytearray(30 << 20)  # what glibc takes as a reason not to give back anything smaller from now on
kept = []
with frugal_heap() if sys.argv[1] == "frugal" else contextlib.nullcontext():
    before = resident()
    pieces = []
    for _ in range(200):
        piece = bytearray(1 << 20)
        piece[::4096] = b"x" * 256
        pieces.append(piece)
        kept.append(bytearray(4096))
    del piece, pieces
print(resident() - before)
"""


def left_after(heap: str) -> int:
    ran = subprocess.run([sys.executable, "-c", CHURN, heap], check=True, capture_output=True, text=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_loading_frees_goes_back_to_the_system() -> None:
    assert left_after("frugal") < 20 * MIB
    assert left_after("plain") > 150 * MIB, "else the test shows nothing"
