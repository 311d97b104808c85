"""Fits context and cache to the memory that there is: the largest with which all replicas have a place. No I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from controlplane.model import Need
from controlplane.placement.model_size import EngineDevice, ModelSize
from controlplane.placement.need import (
    DEFAULT_BLOCK_SIZE,
    SHORTEST_CONTEXT,
    CacheOptions,
    OptionInvalid,
    Resolved,
    cache_bounds,
    compute_need,
)

Fits = Callable[[Need], Awaitable[bool]]  # whether there is a place for every replica; the less it takes, the rather


@dataclass(frozen=True, slots=True)
class Question:
    """What `compute_need` is asked, and what is to be fitted."""

    model: ModelSize
    options: CacheOptions
    device: EngineDevice
    gpu_count: int = 1
    stated_bytes: int | None = None
    draft: ModelSize | None = None
    fits_context: bool = False
    fits_cache: bool = False

    def answer(self) -> tuple[Need, Resolved]:
        """See `compute_need`."""
        return compute_need(
            self.model,
            self.options,
            self.device,
            gpu_count=self.gpu_count,
            stated_bytes=self.stated_bytes,
            draft=self.draft,
        )

    def of_length(self, tokens: int) -> Question:
        """Returns the same with another context."""
        return replace(self, options=replace(self.options, max_model_len=tokens))

    def of_cache(self, size_bytes: int) -> Question:
        """Returns the same with another cache."""
        return replace(self, options=replace(self.options, kv_cache_memory_bytes=size_bytes))


async def fit(question: Question, fits: Fits) -> tuple[Need, Resolved]:
    """Returns the longest context, then the largest cache, with which all replicas fit, of what is to be fitted.

    The cache holds at least one sequence, at most as many as run at a time. If not even the least fits, that is
    returned. Raises OptionInvalid.
    """
    cache_bounds(question.model, question.options, question.device)  # what is wrong whatever fits

    async def works(candidate: Question) -> bool:
        try:
            need, _ = candidate.answer()
        except OptionInvalid:  # a cache, or a total, that is stated does not hold a sequence
            return False
        return await fits(need)

    if question.fits_context:
        question = await _with_context(question, works)
    if question.fits_cache and question.stated_bytes is None:
        question = await _with_cache(question, works)
    need, resolved = question.answer()
    return replace(need, is_fitted=True), resolved


_Works = Callable[[Question], Awaitable[bool]]


async def _with_context(question: Question, works: _Works) -> Question:
    size, most = question.options.block_size or DEFAULT_BLOCK_SIZE, question.model.context_tokens

    def at(blocks: int) -> Question:
        longer = question.of_length(min(most, max(SHORTEST_CONTEXT, blocks * size)))
        if not question.fits_cache or question.stated_bytes is not None:
            return longer
        least, _, block_bytes = cache_bounds(longer.model, longer.options, longer.device)
        return longer.of_cache(least * block_bytes)

    chosen = await _largest(1, -(-most // size), lambda blocks: works(at(blocks)))
    return at(chosen)


async def _with_cache(question: Question, works: _Works) -> Question:
    least, most, block_bytes = cache_bounds(question.model, question.options, question.device)

    def at(blocks: int) -> Question:
        return question.of_cache(blocks * block_bytes)

    return at(await _largest(least, most, lambda blocks: works(at(blocks))))


async def _largest(least: int, most: int, works: Callable[[int], Awaitable[bool]]) -> int:
    """Returns the largest number that works, if all below it do; `least` if none does."""
    if await works(most):
        return most
    low, high = least, most  # low works, or is all that is left; high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await works(middle) else (low, middle)
    return low
