"""How much memory a replica needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model import Need
from controlplane.placement.need import (
    BLOCK_SIZES,
    MIB,
    OVERHEAD_BYTES,
    CacheOptions,
    EngineDevice,
    ModelSize,
    OptionInvalid,
    Resolved,
    compute_need,
)

# Numbers that come out round: a token takes 1 KiB of elements, a block of 16 tokens 64 KiB in float32.
MODEL = ModelSize(
    parameter_count=100 * MIB, weight_bytes=200 * MIB, dtype="bfloat16", context_tokens=2048, kv_elements_per_token=1024
)


def test_on_a_cpu_everything_is_float32_and_32_sequences_fit() -> None:
    need, resolved = compute_need(MODEL, CacheOptions(), "cpu")
    assert resolved == Resolved(2048, 32, 16, 256 * MIB, "float32")
    assert need == Need((400 + 256) * MIB + OVERHEAD_BYTES, 400 * MIB, 256 * MIB, OVERHEAD_BYTES, device="cpu")


def test_on_cuda_everything_is_as_the_checkpoint_and_the_cache_is_bounded() -> None:
    need, resolved = compute_need(MODEL, CacheOptions(dtype="auto"), "cuda")
    assert resolved == Resolved(2048, 256, 16, 1024 * MIB, "bfloat16")
    assert need == Need((200 + 1024) * MIB + OVERHEAD_BYTES, 200 * MIB, 1024 * MIB, OVERHEAD_BYTES, device="cuda")


@pytest.mark.parametrize(
    ("options", "resolved"),
    [
        pytest.param(CacheOptions(max_model_len=1024), Resolved(1024, 32, 16, 128 * MIB, "float32"), id="length"),
        pytest.param(CacheOptions(batch_size=4), Resolved(2048, 4, 16, 32 * MIB, "float32"), id="batch_size"),
        pytest.param(CacheOptions(dtype="float16"), Resolved(2048, 32, 16, 128 * MIB, "float16"), id="dtype"),
        pytest.param(
            CacheOptions(kv_cache_memory_bytes=20_000_000),
            Resolved(2048, 32, 16, 20_000_000 // (64 * 1024) * 64 * 1024, "float32"),
            id="cache_in_whole_blocks",
        ),
        pytest.param(
            CacheOptions(batch_size=1),
            Resolved(2048, 1, 16, 8 * MIB + 64 * 1024, "float32"),
            id="never_less_than_one_sequence_and_a_block",
        ),
        pytest.param(
            CacheOptions(max_model_len=100, batch_size=3, block_size=128),
            Resolved(100, 3, 128, 3 * 128 * 4096, "float32"),
            id="rounded_up_to_whole_blocks",
        ),
    ],
)
def test_an_option_that_is_stated_decides(options: CacheOptions, resolved: Resolved) -> None:
    need, found = compute_need(MODEL, options, "cpu")
    assert found == resolved
    assert need.kv_cache_bytes == resolved.kv_cache_memory_bytes


def test_a_total_that_is_stated_is_taken_and_the_parts_stay_as_computed() -> None:
    computed, _ = compute_need(MODEL, CacheOptions(), "cpu")
    need, _ = compute_need(MODEL, CacheOptions(), "cpu", stated_bytes=5)
    assert need == replace(computed, total_bytes=5, is_stated=True)


@pytest.mark.parametrize(
    ("dtype", "device", "weight_bytes", "computes_in"),
    [
        ("", "cuda", 70 * MIB, "bfloat16"),
        ("", "cpu", 400 * MIB, "float32"),
        ("float16", "cuda", 200 * MIB, "float16"),
    ],
)
def test_a_quantized_checkpoint_stays_so_on_cuda_only(
    dtype: str, device: EngineDevice, weight_bytes: int, computes_in: str
) -> None:
    quantized = replace(MODEL, dtype="int4", weight_bytes=70 * MIB)
    need, resolved = compute_need(quantized, CacheOptions(dtype=dtype), device)
    assert (need.weight_bytes, resolved.dtype) == (weight_bytes, computes_in)


@pytest.mark.parametrize(
    ("options", "field", "says"),
    [
        (CacheOptions(max_model_len=2049), "max_model_len", "2049 is out of range: use 16 to 2048 tokens"),
        (CacheOptions(max_model_len=15), "max_model_len", "15 is out of range"),
        (CacheOptions(batch_size=0), "batch_size", "0 sequences is out of range: use 1 or more"),
        (CacheOptions(block_size=20), "block_size", "20 is not served: use 8, 16, 32, 64, 128"),
        (CacheOptions(dtype="int4"), "dtype", '"int4" is not served: use auto, float32, bfloat16, float16'),
        (
            CacheOptions(kv_cache_memory_bytes=8 * MIB),
            "kv_cache_memory_bytes",
            "8388608 bytes do not hold one sequence of 2048 tokens: use at least 8454144, or lower max_model_len",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_an_option_that_this_model_cannot_have_is_refused_by_name(options: CacheOptions, field: str, says: str) -> None:
    with pytest.raises(OptionInvalid) as caught:
        compute_need(MODEL, options, "cpu")
    assert caught.value.field == field
    assert says in caught.value.description


@pytest.mark.parametrize(
    ("model", "options", "field"),
    [
        (MODEL, CacheOptions(kv_cache_memory_bytes=2**63 - 1), "kv_cache_memory_bytes"),
        (replace(MODEL, kv_elements_per_token=2**61), CacheOptions(), "max_model_len"),
        (replace(MODEL, parameter_count=2**62), CacheOptions(), "max_model_len"),
    ],
    ids=["a cache that is stated", "a cache that is computed", "weights"],
)
@pytest.mark.parametrize("stated_bytes", [None, MIB])
def test_what_no_message_holds_is_refused(
    model: ModelSize, options: CacheOptions, field: str, stated_bytes: int | None
) -> None:
    with pytest.raises(OptionInvalid, match="more than can be counted") as caught:
        compute_need(model, options, "cpu", stated_bytes=stated_bytes)
    assert caught.value.field == field


def test_the_least_cache_that_a_refusal_names_is_taken() -> None:
    _, resolved = compute_need(MODEL, CacheOptions(kv_cache_memory_bytes=8454144), "cpu")
    assert resolved.kv_cache_memory_bytes == 8454144


@settings(deadline=None)
@given(
    context=st.integers(16, 200_000),
    elements=st.integers(1, 200_000),
    batch_size=st.none() | st.integers(1, 4096),
    block_size=st.none() | st.sampled_from(BLOCK_SIZES),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_the_cache_is_whole_blocks_and_holds_the_longest_sequence(
    context: int, elements: int, batch_size: int | None, block_size: int | None, device: EngineDevice
) -> None:
    model = replace(MODEL, context_tokens=context, kv_elements_per_token=elements)
    options = CacheOptions(batch_size=batch_size, block_size=block_size)
    need, resolved = compute_need(model, options, device)
    block_bytes = resolved.block_size * elements * (4 if resolved.dtype == "float32" else 2)
    blocks, rest = divmod(resolved.kv_cache_memory_bytes, block_bytes)
    assert rest == 0
    assert blocks * resolved.block_size >= context + resolved.block_size
    assert need.total_bytes == need.weight_bytes + resolved.kv_cache_memory_bytes + need.overhead_bytes
