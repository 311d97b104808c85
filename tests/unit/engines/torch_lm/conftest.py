"""Tiny models, made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from engines.backends.torch_lm.load import Loaded, load_model
from tests.support.tiny_models import write_tiny_model

KV_CACHE_BYTES = 4 << 20


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def directory(family: str) -> Path:
        return write_tiny_model(tmp_path_factory.mktemp(family), family)

    return directory


@pytest.fixture(scope="session")
def loaded(model_directory: Callable[[str], Path]) -> Callable[[str], Loaded]:
    @cache
    def load(family: str) -> Loaded:
        return load_model(model_directory(family), device="cpu", block_size=8, kv_cache_bytes=KV_CACHE_BYTES)

    return load
