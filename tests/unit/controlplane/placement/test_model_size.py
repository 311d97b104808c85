"""What weights and steps of a model take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.placement import need
from controlplane.placement.model_size import (
    MIB,
    EngineDevice,
    Format,
    ModelSize,
    Step,
    loading_bytes,
    step_bytes,
    unreturned_bytes,
    weight_bytes,
)
from controlplane.placement.need import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_BATCHED_TOKENS,
    DEFAULT_BLOCK_SIZE,
    CacheOptions,
    compute_need,
)
from engines import config
from engines.batching.rows import SCORED_TOKENS

MODEL = ModelSize(
    parameter_count=100 * MIB,
    weight_bytes=200 * MIB,
    dtype="bfloat16",
    context_tokens=2048,
    kv_elements_per_token=8 * 1024,
    linear_parameter_count=60 * MIB,
    largest_tensor_parameter_count=32 * MIB,
    hidden_size=1024,
    intermediate_size=4096,
    query_size=1024,
    vocabulary_size=32 * 1024,
    layer_count=8,
)
TIED = replace(MODEL, tied_parameter_count=32 * MIB)
STORED = Format("cuda", "bfloat16", is_as_stored=True)
FLOAT = Format("cpu", "float32", is_as_stored=False)
INT8 = replace(FLOAT, is_int8=True)
SCALES = 92 * MIB // 1024 * 4  # one for each output of layers with 1,024 inputs or more
STORED_FLOAT = replace(MODEL, dtype="float32", weight_bytes=400 * MIB)
STEP = Step(token_count=512, logits_count=512, context_tokens=2048)

WEIGHTS = {
    "as stored": (MODEL, STORED, 200 * MIB),
    "in float32": (MODEL, FLOAT, 400 * MIB),
    "an output layer that is packed beside the embeddings": (TIED, FLOAT, 528 * MIB),
    "one that is not": (TIED, STORED, 200 * MIB),
    "quantized, but for embeddings and norms": (MODEL, INT8, (8 * 4 + 92) * MIB + SCALES),
    "quantized apart from the embeddings": (TIED, INT8, (40 * 4 + 92) * MIB + SCALES),
    "mapped, but for the embeddings": (STORED_FLOAT, FLOAT, (400 - 128) * MIB),
    "quantized on a GPU": (MODEL, replace(STORED, is_int8=True), (8 * 2 + 92) * MIB + SCALES),
}


@pytest.mark.parametrize(("model", "form", "size"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_take_what_their_format_says(model: ModelSize, form: Format, size: int) -> None:
    assert weight_bytes(model, form) == size


LOADING = {
    "converted: all, and the largest tensor once more": (MODEL, FLOAT, (400 + 128) * MIB),
    "quantized: copies of the output layer, beside all else in eight bits": (
        MODEL,
        INT8,
        (8 * 4 + 92) * MIB + SCALES + 4 * 128 * MIB,
    ),
    "quantized with a small output layer: all, and copies of the first layer": (
        replace(MODEL, largest_tensor_parameter_count=8 * MIB),
        INT8,
        (400 + 3 * 32) * MIB,
    ),
    "mapped: what is packed, and the largest tensor": (STORED_FLOAT, FLOAT, (400 - 128 + 128) * MIB),
    "mapped and quantized": (STORED_FLOAT, INT8, (8 * 4 + 92 - 128) * MIB + SCALES + 3 * 128 * MIB),
}


@pytest.mark.parametrize(("model", "form", "size"), LOADING.values(), ids=LOADING)
def test_loading_takes_the_weights_and_what_is_being_changed(model: ModelSize, form: Format, size: int) -> None:
    assert loading_bytes(model, form) == size


@pytest.mark.parametrize("grown", ["token_count", "logits_count", "context_tokens"])
def test_a_larger_step_takes_more(grown: str) -> None:
    assert step_bytes(MODEL, FLOAT, replace(STEP, **{grown: 10_000})) > step_bytes(MODEL, FLOAT, STEP)


@pytest.mark.parametrize("widened", ["hidden_size", "intermediate_size", "query_size", "vocabulary_size"])
def test_a_wider_model_takes_more_for_a_step(widened: str) -> None:
    wider = replace(MODEL, **{widened: 4 * getattr(MODEL, widened)})
    assert step_bytes(wider, FLOAT, STEP) > step_bytes(MODEL, FLOAT, STEP)


def test_of_a_model_that_an_old_agent_has_looked_at_only_the_weights_are_known() -> None:
    old = ModelSize(100 * MIB, 200 * MIB, "bfloat16", 2048, 8 * 1024)
    assert weight_bytes(old, FLOAT) == 400 * MIB
    assert weight_bytes(old, INT8) == 400 * MIB
    assert (loading_bytes(old, FLOAT), step_bytes(old, FLOAT, STEP)) == (0, 0)


def test_on_a_host_there_is_room_for_the_logits_of_all_that_is_scored() -> None:
    def overhead(device: EngineDevice, batch_size: int) -> int:
        found, _ = compute_need(MODEL, CacheOptions(batch_size=batch_size, max_num_batched_tokens=1024), device)
        return found.overhead_bytes

    row = 32 * 1024 * 4
    assert overhead("cpu", 4) - overhead("cpu", 2) >= 2 * SCORED_TOKENS * row
    assert overhead("cpu", 64) - overhead("cpu", 8) < SCORED_TOKENS * row, "a step has no more tokens"
    assert overhead("cuda", 4) - overhead("cuda", 2) < SCORED_TOKENS * row


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_not_stated_is_what_an_engine_takes(device: EngineDevice) -> None:
    assert DEFAULT_BATCH_SIZE[device] == config.BATCH_SIZE[device]
    assert DEFAULT_BATCHED_TOKENS[device] == config.MAX_BATCHED_TOKENS[device]
    assert DEFAULT_BLOCK_SIZE == config.BLOCK_SIZE
    assert need.SCORED_TOKENS == SCORED_TOKENS


def test_what_the_allocator_keeps_of_a_host_has_its_place() -> None:
    assert unreturned_bytes(MODEL, FLOAT) == 32 * MIB
    assert unreturned_bytes(MODEL, STORED) == 0
