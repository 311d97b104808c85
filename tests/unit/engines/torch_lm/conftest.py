"""Tiny models, made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest

from engines.backends.torch_lm.load import Loaded, load_model
from engines.demo_model import MODEL_DIR
from tests.support.tiny_models import write_tiny_model

KV_CACHE_BYTES = 4 << 20


class Load(Protocol):
    """Loads a family, once for each set of options."""

    def __call__(self, family: str, **options: str) -> Loaded: ...


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the directory of a family; `demo` is the model that ships."""

    @cache
    def directory(family: str) -> Path:
        return MODEL_DIR if family == "demo" else write_tiny_model(tmp_path_factory.mktemp(family), family)

    return directory


@pytest.fixture(scope="session")
def loaded(model_directory: Callable[[str], Path]) -> Load:
    @cache
    def load(family: str, **options: str) -> Loaded:
        bytes_ = KV_CACHE_BYTES * (6 if family == "demo" else 1)
        return load_model(model_directory(family), device="cpu", block_size=8, kv_cache_bytes=bytes_, **options)  # type: ignore[arg-type]

    return load
