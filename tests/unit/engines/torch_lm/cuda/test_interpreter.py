"""The tests of the kernels, and whole models through them, under Triton's interpreter, which computes on the CPU.

In processes of their own: whether Triton compiles or interprets is decided when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here"),
]
HERE = Path(__file__).parent


FAMILIES = "gemma2 or gpt_oss or phi3 or mistral or qwen3_moe"  # with all that attention and layers may have


@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        ("test_kernels.py", ""),
        ("test_elementwise.py", ""),
        ("test_place.py", f"(first_way and ({FAMILIES})) or not_used"),
        ("test_runner.py", "side_by_side and qwen3"),
    ],
    ids=["attention", "other kernels", "models", "one step ahead"],
)
def test_what_a_gpu_would_compute_is_right(file: str, chosen: str) -> None:
    # A warning of Triton 3.6 about numpy, in its own code, is none of ours.
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning:triton"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", chosen, "-m", "not gpu", HERE / file],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
