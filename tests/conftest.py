"""Skips, with a reason, what this machine cannot run; and lets no example of a property fail for being slow."""

import os
from pathlib import Path

import hypothesis
import pynvml
import pytest

# A machine that does other things as well makes any example slow; what must be fast is measured in benchmarks/.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

# Nodes do not ask the hub, but for those of tests that bring one.
os.environ["HF_HUB_OFFLINE"] = "1"

NODE_MODULES = Path(__file__).parent / "node/node_modules"


def _gpu_count() -> int:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not _gpu_count():
        pytest.skip("NVML finds no GPU here")
    if item.get_closest_marker("node") and not NODE_MODULES.exists():
        pytest.skip("there is no npm here, so `make` could not fill tests/node/node_modules")
