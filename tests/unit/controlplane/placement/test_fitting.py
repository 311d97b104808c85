"""Context and cache are as large as fits, and no larger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model import Need
from controlplane.placement.fitting import Fits, Question, fit
from controlplane.placement.model_size import MIB, RUNTIME_BYTES, ModelSize
from controlplane.placement.need import CacheOptions, OptionInvalid

# A block of 16 tokens takes 64 KiB in float32, a sequence of 2,048 tokens 8 MiB and a block.
MODEL = ModelSize(100 * MIB, 200 * MIB, "bfloat16", context_tokens=2048, kv_elements_per_token=1024)
BLOCK = 64 * 1024
FIXED = 400 * MIB + RUNTIME_BYTES


def below(limit: int) -> Fits:
    """Returns what takes a need that does not exceed a limit."""

    async def fits(need: Need) -> bool:
        return need.total_bytes <= limit

    return fits


def asked(*, context: bool = False, cache: bool = False, options: Any = None, **fields: Any) -> Question:
    given = CacheOptions(**(options or {}))
    return Question(MODEL, given, "cpu", fits_context=context, fits_cache=cache, **fields)


async def test_where_all_fits_the_context_is_the_models_and_the_cache_that_of_a_batch() -> None:
    need, resolved = await fit(asked(context=True, cache=True), below(FIXED + 10**12))
    assert (resolved.max_model_len, resolved.kv_cache_memory_bytes) == (2048, 32 * 8 * MIB)
    assert need.is_fitted


async def test_a_cache_takes_what_is_left_in_whole_blocks() -> None:
    need, resolved = await fit(asked(cache=True), below(FIXED + 100 * MIB + 5))
    assert (resolved.max_model_len, resolved.kv_cache_memory_bytes) == (2048, 100 * MIB)
    assert need.total_bytes == FIXED + 100 * MIB


async def test_a_context_is_as_long_as_one_sequence_and_a_block_fit() -> None:
    _, resolved = await fit(asked(context=True, cache=True), below(FIXED + 33 * BLOCK))
    assert (resolved.max_model_len, resolved.kv_cache_memory_bytes) == (32 * 16, 33 * BLOCK)


async def test_a_context_alone_keeps_the_cache_that_its_batch_would_have() -> None:
    _, resolved = await fit(asked(context=True), below(FIXED + 100 * MIB))
    assert resolved.kv_cache_memory_bytes == 32 * resolved.max_model_len * 4096
    assert resolved.max_model_len == 100 * MIB // (32 * 4096) // 16 * 16


async def test_a_context_is_no_longer_than_a_cache_that_is_stated_holds() -> None:
    _, resolved = await fit(asked(context=True, options={"kv_cache_memory_bytes": 65 * BLOCK}), below(10**12))
    assert (resolved.max_model_len, resolved.kv_cache_memory_bytes) == (64 * 16, 65 * BLOCK)


async def test_a_context_is_no_longer_than_a_total_that_is_stated_holds() -> None:
    need, resolved = await fit(asked(context=True, stated_bytes=FIXED + 65 * BLOCK), below(10**12))
    assert (resolved.max_model_len, resolved.kv_cache_memory_bytes) == (64 * 16, 65 * BLOCK)
    assert (need.is_fitted, need.is_stated, need.total_bytes) == (True, True, FIXED + 65 * BLOCK)


async def test_the_least_is_returned_where_nothing_fits() -> None:
    need, resolved = await fit(asked(context=True, cache=True), below(0))
    assert (resolved.max_model_len, resolved.kv_cache_memory_bytes) == (16, 2 * BLOCK)
    assert need.total_bytes == FIXED + 2 * BLOCK


@pytest.mark.parametrize(
    ("question", "field"),
    [
        (asked(context=True, options={"block_size": 17}), "block_size"),
        (asked(cache=True, options={"max_model_len": 4096}), "max_model_len"),
        (asked(context=True, options={"kv_cache_memory_bytes": 5}), "kv_cache_memory_bytes"),
        (asked(cache=True, stated_bytes=5), "memory_bytes"),
    ],
    ids=["blocks", "a context", "a cache", "a total"],
)
async def test_what_no_fitting_mends_is_refused_by_name(question: Question, field: str) -> None:
    with pytest.raises(OptionInvalid) as refused:
        await fit(question, below(10**12))
    assert refused.value.field == field


@settings(deadline=None)
@given(
    room=st.integers(2 * BLOCK, 400 * MIB),
    context=st.integers(16, 4096),
    block_size=st.sampled_from([8, 16, 128]),
    fits_context=st.booleans(),
)
async def test_one_more_block_would_not_fit(room: int, context: int, block_size: int, fits_context: bool) -> None:
    model = replace(MODEL, context_tokens=context)
    question = replace(asked(context=fits_context, cache=True, options={"block_size": block_size}), model=model)
    fits = below(FIXED + room)
    need, resolved = await fit(question, fits)
    if not await fits(need):
        assert resolved.kv_cache_memory_bytes == (-(-resolved.max_model_len // block_size) + 1) * block_size * 4096
        assert resolved.max_model_len == context or fits_context
        return
    blocks = -(-32 * resolved.max_model_len // block_size)
    if resolved.kv_cache_memory_bytes < blocks * block_size * 4096:
        more, _ = (
            question.of_length(resolved.max_model_len)
            .of_cache(resolved.kv_cache_memory_bytes + block_size * 4096)
            .answer()
        )
        assert not await fits(more)


async def test_a_few_dozen_placements_are_tried_at_most() -> None:
    tried = []

    async def fits(need: Need) -> bool:
        tried.append(need)
        return need.total_bytes <= FIXED + 700 * MIB

    long = replace(asked(context=True, cache=True), model=replace(MODEL, context_tokens=1_000_000))
    await fit(long, fits)
    assert len(tried) < 45
