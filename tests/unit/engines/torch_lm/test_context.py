"""A model takes as many tokens as it can without a request changing what its neighbours get."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.backends.torch_lm.context import context_tokens
from engines.backends.torch_lm.load import Loaded, load_model
from engines.backends.torch_lm.weights import read_config
from nodeagent.models.directory import read_model
from roundhouse.kit.errors import InvalidArgument
from tests.support.model_bench import bench_of
from tests.support.outputs import work
from tests.support.tiny_models import CONTEXT

Directories = Callable[[str], Path]
SWITCH = 64
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [4.0 + number for number in range(8)], "factor": 4.0}
LONG = {"rope_type": "longrope", **FACTORS}
LATE = {**LONG, "original_max_position_embeddings": SWITCH}


@pytest.fixture
def rotated(model_directory: Directories, tmp_path: Path) -> Callable[..., Path]:
    """Returns a tiny llama, turned by what is given; None removes a field."""

    def make(**changes: Any) -> Path:
        directory = tmp_path / "model"
        shutil.copytree(model_directory("llama"), directory)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        changed = {name: value for name, value in (config | changes).items() if value is not None}
        (directory / "config.json").write_text(json.dumps(changed), encoding="utf-8")
        return directory

    return make


def load(directory: Path, max_model_len: int | None = None) -> Loaded:
    return load_model(directory, device="cpu", kv_cache_bytes=16 << 20, max_model_len=max_model_len)


def test_the_longest_neighbour_that_is_taken_changes_nothing(rotated: Callable[..., Path]) -> None:
    model = load(rotated(rope_parameters=LATE))
    assert continuation(model, neighbour=1) == continuation(model, neighbour=model.max_model_len - 1)


def continuation(model: Loaded, *, neighbour: int) -> list[int]:
    """Returns 20 tokens of a short sequence, beside one of so many tokens that comes after the fifth."""
    with bench_of(model, max_batched_tokens=2 * CONTEXT) as it:
        short = it.submit(work("short", (1, 2), 20))
        short.has_or_ended(5)
        it.run(work("long", (3,) * neighbour, 1))
        short.end()
    return short.ids


def test_more_than_works_is_refused_and_the_reason_is_said(rotated: Callable[..., Path]) -> None:
    config = read_config(rotated(rope_parameters=LATE))
    with pytest.raises(InvalidArgument, match=r"is 65, .* change the output of those beside it .*: ask for 64 or less"):
        context_tokens(config, SWITCH + 1)
    assert context_tokens(config, SWITCH) == SWITCH


ROPES = {
    "of the usual kind": ({}, CONTEXT),
    "long": ({"rope_parameters": LATE}, SWITCH),
    "long, in older words": ({"rope_parameters": None, "rope_scaling": {**LATE, "type": "longrope"}}, SWITCH),
    "long, said outside": ({"rope_parameters": LONG, "original_max_position_embeddings": SWITCH}, SWITCH),
    "long, from the end on": ({"rope_parameters": LONG}, CONTEXT),
    "long, from beyond the end on": (
        {"rope_parameters": {**LONG, "original_max_position_embeddings": 2 * CONTEXT}},
        CONTEXT,
    ),
    "of phi": (
        {"model_type": "phi3", "rope_parameters": LONG, "max_position_embeddings": 8192},
        4096,
    ),
    "of phi, said outside": (
        {"model_type": "phi3", "rope_parameters": LONG, "original_max_position_embeddings": SWITCH},
        SWITCH,
    ),
    "dynamic": ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, CONTEXT),
    "that starts otherwise and never changes": (
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": SWITCH}},
        CONTEXT,
    ),
}


@pytest.mark.parametrize(("changes", "expected"), ROPES.values(), ids=ROPES)
def test_the_context_is_what_works_and_what_the_node_agent_reports(
    rotated: Callable[..., Path], changes: dict[str, Any], expected: int
) -> None:
    directory = rotated(**changes)
    assert context_tokens(read_config(directory), None) == expected
    assert read_model(directory).context_tokens == expected


def test_dynamic_factors_do_not_change_within_the_context(
    rotated: Callable[..., Path],
) -> None:
    model = load(rotated(rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}))
    assert model.max_model_len == CONTEXT
    assert continuation(model, neighbour=1) == continuation(model, neighbour=CONTEXT - 1)
