"""How much memory a replica needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model import Need
from controlplane.placement.model_size import MIB, RUNTIME_BYTES, EngineDevice, ModelSize
from controlplane.placement.need import BLOCK_SIZES, CacheOptions, OptionInvalid, Resolved, compute_need

# Numbers that come out round: a token takes 1 KiB of elements, a block of 16 tokens 64 KiB in float32.
MODEL = ModelSize(
    parameter_count=100 * MIB, weight_bytes=200 * MIB, dtype="bfloat16", context_tokens=2048, kv_elements_per_token=1024
)

WIDE = replace(
    MODEL,
    linear_parameter_count=60 * MIB,
    tied_parameter_count=32 * MIB,
    largest_tensor_parameter_count=32 * MIB,
    hidden_size=1024,
    intermediate_size=4096,
    query_size=1024,
    vocabulary_size=32 * 1024,
    layer_count=8,
)


def test_on_a_cpu_everything_is_float32_and_32_sequences_fit() -> None:
    need, resolved = compute_need(MODEL, CacheOptions(), "cpu")
    assert resolved == Resolved(2048, 32, 16, 256 * MIB, "float32")
    assert need == Need((400 + 256) * MIB + RUNTIME_BYTES, 400 * MIB, 256 * MIB, RUNTIME_BYTES, device="cpu")


def test_on_cuda_everything_is_as_the_checkpoint_and_the_cache_is_bounded() -> None:
    need, resolved = compute_need(MODEL, CacheOptions(dtype="auto"), "cuda")
    assert resolved == Resolved(2048, 256, 16, 1024 * MIB, "bfloat16")
    assert need == Need((200 + 1024) * MIB + RUNTIME_BYTES, 200 * MIB, 1024 * MIB, RUNTIME_BYTES, device="cuda")


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


BLOCK = 64 * 1024


def test_of_a_total_that_is_stated_the_cache_gets_what_is_left() -> None:
    stated = 2000 * MIB + 5
    need, resolved = compute_need(MODEL, CacheOptions(), "cpu", stated_bytes=stated)
    left = 2000 * MIB - 400 * MIB - RUNTIME_BYTES
    assert need == Need(stated, 400 * MIB, left, RUNTIME_BYTES, is_stated=True, device="cpu")
    assert resolved == Resolved(2048, 32, 16, left, "float32")


def test_a_total_and_a_cache_that_are_stated_both_hold() -> None:
    need, _ = compute_need(MODEL, CacheOptions(kv_cache_memory_bytes=64 * MIB), "cpu", stated_bytes=2000 * MIB)
    assert need == Need(2000 * MIB, 400 * MIB, 64 * MIB, RUNTIME_BYTES, is_stated=True, device="cpu")


@pytest.mark.parametrize(
    ("cache_bytes", "says"),
    [(None, "one sequence of 2048 tokens"), (100 * MIB, "a KV cache of 100 MiB")],
    ids=["what is left", "a cache that is stated"],
)
def test_a_total_that_does_not_hold_what_it_must_is_refused_with_the_least_that_does(
    cache_bytes: int | None, says: str
) -> None:
    options = CacheOptions(kv_cache_memory_bytes=cache_bytes)
    least = 400 * MIB + RUNTIME_BYTES + (cache_bytes or 2064 * 4096)
    for stated in (5, least - 1):
        with pytest.raises(OptionInvalid, match=f"use at least {least}") as caught:
            compute_need(MODEL, options, "cpu", stated_bytes=stated)
        assert caught.value.field == "memory_bytes"
        assert says in caught.value.description
    need, _ = compute_need(MODEL, options, "cpu", stated_bytes=least)
    assert need.total_bytes == least


@pytest.mark.parametrize("gpu_count", [1, 2, 3, 8])
def test_gpus_of_a_replica_divide_weights_and_cache_and_each_has_the_overhead(gpu_count: int) -> None:
    need, _ = compute_need(WIDE, CacheOptions(), "cpu", gpu_count=gpu_count)
    parts = -(-need.weight_bytes // gpu_count) + -(-need.kv_cache_bytes // gpu_count)
    assert need.total_bytes == parts + need.overhead_bytes
    assert need.gpu_count == gpu_count
    stated, _ = compute_need(WIDE, CacheOptions(), "cpu", gpu_count=gpu_count, stated_bytes=need.total_bytes)
    assert need.kv_cache_bytes - gpu_count * BLOCK <= stated.kv_cache_bytes <= need.kv_cache_bytes


def test_in_the_memory_of_a_host_nothing_is_divided() -> None:
    on_host, _ = compute_need(WIDE, CacheOptions(), "cpu", gpu_count=0)
    on_gpu, _ = compute_need(WIDE, CacheOptions(), "cpu")
    assert on_host == replace(on_gpu, gpu_count=0)


@settings(deadline=None)
@given(
    stated_mib=st.integers(1, 20_000),
    gpu_count=st.integers(0, 8),
    is_int8=st.booleans(),
    tokens=st.sampled_from([16, 512, 65536]),
    drafts=st.booleans(),
)
def test_what_a_stated_total_is_divided_into_never_exceeds_it(
    stated_mib: int, gpu_count: int, is_int8: bool, tokens: int, drafts: bool
) -> None:
    options = CacheOptions(is_int8=is_int8, max_num_batched_tokens=tokens)
    draft = MODEL if drafts else None
    try:
        need, _ = compute_need(
            WIDE, options, "cpu", gpu_count=gpu_count, stated_bytes=stated_mib * MIB + 1, draft=draft
        )
    except OptionInvalid as refused:
        least = int(refused.description.partition("use at least ")[2].partition(",")[0])
        assert stated_mib * MIB + 1 < least
        need, _ = compute_need(WIDE, options, "cpu", gpu_count=gpu_count, stated_bytes=least, draft=draft)
    shares = max(1, gpu_count)
    parts = -(-need.weight_bytes // shares) + -(-need.kv_cache_bytes // shares)
    assert parts + need.overhead_bytes <= need.total_bytes


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
def test_what_no_message_holds_is_refused(model: ModelSize, options: CacheOptions, field: str) -> None:
    with pytest.raises(OptionInvalid, match="more than can be counted") as caught:
        compute_need(model, options, "cpu")
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
