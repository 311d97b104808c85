"""How much memory a replica needs, and the numbers with which its engine takes just that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.model import Need
from controlplane.placement.model_size import (
    DTYPE_BYTES,
    MIB,
    RUNTIME_BYTES,
    EngineDevice,
    Format,
    ModelSize,
    Step,
    loading_bytes,
    step_bytes,
    unreturned_bytes,
    weight_bytes,
)
from roundhouse.kit.units import format_bytes

DEFAULT_KV_CACHE_BYTES = 1024 * MIB  # the most that is taken unasked
DEFAULT_BATCH_SIZE: Mapping[EngineDevice, int] = {"cpu": 32, "cuda": 256}
DEFAULT_BATCHED_TOKENS: Mapping[EngineDevice, int] = {"cpu": 512, "cuda": 8192}
DEFAULT_BLOCK_SIZE = 16
BLOCK_SIZES = (8, 16, 32, 64, 128)
SCORED_TOKENS = 128  # of one prompt whose logits are wanted in one step
BLOCK_BYTES = 512  # what the engine notes of a block, and of what it holds
SHORTEST_CONTEXT = 16
MOST_BYTES = 2**63 - 1  # what a field of a message holds
_AUTO = ("", "auto")


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """The engine options that decide its memory, as stated; None or empty where they are not."""

    max_model_len: int | None = None
    batch_size: int | None = None
    block_size: int | None = None
    kv_cache_memory_bytes: int | None = None
    dtype: str = ""
    max_num_batched_tokens: int | None = None
    is_int8: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """The same with every value filled in, as the engine is to use them.

    `batch_size` sized the cache; hand it down only if it was stated, or the engine's own environment could not set it.
    """

    max_model_len: int
    batch_size: int
    block_size: int
    kv_cache_memory_bytes: int
    dtype: str
    draft_kv_cache_memory_bytes: int = 0  # of the model that guesses: for as many tokens


class OptionInvalid(Exception):
    """An option that this model cannot have; `field` is its name in `EngineOptions`, or `memory_bytes`."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field, self.description = field, description


def compute_need(
    model: ModelSize,
    options: CacheOptions,
    device: EngineDevice,
    *,
    gpu_count: int = 1,
    stated_bytes: int | None = None,
    draft: ModelSize | None = None,
) -> tuple[Need, Resolved]:
    """Returns what one replica takes of each of its devices, and the numbers with which its engine takes just that.

    gpu_count: GPUs among which weights and cache are divided; 0 in the memory of a host. stated_bytes: the total that
    the user states instead, of which the cache gets what is left. draft: a model that guesses tokens ahead beside the
    first, as it is. Raises OptionInvalid.
    """
    frame = _frame(model, options, device, draft, max(1, gpu_count))
    blocks = _blocks(frame, options.kv_cache_memory_bytes, stated_bytes)
    computed = frame.total_bytes(blocks)
    if stated_bytes is not None and computed > stated_bytes:
        raise _too_little(frame, stated_bytes, blocks)
    total = computed if stated_bytes is None else stated_bytes
    cache, drafted = blocks * frame.block_bytes, blocks * frame.draft_block_bytes
    if (most := max(total, frame.weight_bytes + cache + drafted)) > MOST_BYTES:
        field = "max_model_len" if options.kv_cache_memory_bytes is None else "kv_cache_memory_bytes"
        raise OptionInvalid(field, f"one replica would take {most} bytes, more than can be counted: use less")
    need = Need(
        total_bytes=total,
        weight_bytes=frame.weight_bytes,
        kv_cache_bytes=cache + drafted,
        overhead_bytes=frame.overhead_bytes(blocks),
        is_stated=stated_bytes is not None,
        device=device,
        gpu_count=gpu_count,
    )
    return need, Resolved(frame.max_model_len, frame.batch_size, frame.block_size, cache, frame.dtype, drafted)


def cache_bounds(model: ModelSize, options: CacheOptions, device: EngineDevice) -> tuple[int, int, int]:
    """Returns the fewest and the most blocks that a cache is worth having, and the bytes of one.

    They are those of one sequence, and of as many as run at a time, of the longest length. Raises OptionInvalid.
    """
    frame = _frame(model, options, device, None, 1)
    most = -(-frame.batch_size * frame.max_model_len // frame.block_size)
    return frame.least_blocks, max(most, frame.least_blocks), frame.block_bytes


@dataclass(frozen=True, slots=True)
class _Frame:
    """All that is settled before the size of the cache is."""

    max_model_len: int
    batch_size: int
    block_size: int
    dtype: str
    shares: int  # among which weights and cache are divided
    block_bytes: int
    draft_block_bytes: int
    note_bytes: int  # of a block, beside it
    weight_bytes: int
    loading_bytes: int
    step_bytes: int  # of the largest, and what is lost of what loading took

    @property
    def least_blocks(self) -> int:
        """Returns how many blocks hold one sequence."""
        # One to spare: a sequence at the limit does not keep all others out.
        return -(-self.max_model_len // self.block_size) + 1

    def overhead_bytes(self, blocks: int) -> int:
        """Returns what the run-time takes, the largest step, and notes of blocks.

        The cache is made when the weights are there: until then, what they are made from has its place.
        """
        early = _share(self.loading_bytes, self.shares) - self.kept_bytes(blocks)
        return RUNTIME_BYTES + max(self.step_bytes, early) + blocks * self.note_bytes

    def kept_bytes(self, blocks: int) -> int:
        """Returns what weights and cache take on each device."""
        cache = blocks * (self.block_bytes + self.draft_block_bytes)
        return _share(self.weight_bytes, self.shares) + _share(cache, self.shares)

    def total_bytes(self, blocks: int) -> int:
        """Returns what all takes on each device."""
        return self.kept_bytes(blocks) + self.overhead_bytes(blocks)

    def blocks_in(self, total_bytes: int) -> int:
        """Returns how many blocks a total has room for."""
        left = total_bytes - RUNTIME_BYTES
        beside = left - self.step_bytes - _share(self.weight_bytes, self.shares)
        each = self.block_bytes + self.draft_block_bytes + self.note_bytes * self.shares
        blocks = beside * self.shares // each
        if self.note_bytes:
            blocks = min(blocks, (left - _share(self.loading_bytes, self.shares)) // self.note_bytes)
        return blocks


def _frame(
    model: ModelSize, options: CacheOptions, device: EngineDevice, draft: ModelSize | None, shares: int
) -> _Frame:
    dtype = _dtype(model, options.dtype, device)
    max_model_len = options.max_model_len if options.max_model_len is not None else model.context_tokens
    batch_size = options.batch_size if options.batch_size is not None else DEFAULT_BATCH_SIZE[device]
    block_size = options.block_size if options.block_size is not None else DEFAULT_BLOCK_SIZE
    if not SHORTEST_CONTEXT <= max_model_len <= model.context_tokens:
        limits = f"{SHORTEST_CONTEXT} to {model.context_tokens} tokens, the context of the model"
        raise OptionInvalid("max_model_len", f"{max_model_len} is out of range: use {limits}")
    if batch_size < 1:
        raise OptionInvalid("batch_size", f"{batch_size} sequences is out of range: use 1 or more")
    if block_size not in BLOCK_SIZES:
        raise OptionInvalid("block_size", f"{block_size} is not served: use {', '.join(map(str, BLOCK_SIZES))}")
    tokens = options.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS[device]
    # Whoever has prompts scored wants the logits of many tokens. On a GPU, where a step for which memory is short is
    # refused and nothing else suffers, one for each sequence has its place; a host ends the process.
    logits = batch_size * (SCORED_TOKENS if device == "cpu" else 1)
    steps = [
        Step(tokens, min(tokens, count), max_model_len) for count in (logits, batch_size)
    ]  # a draft scores nothing
    is_stored = device == "cuda" and options.dtype in _AUTO
    form = Format(device, dtype, is_stored or dtype == model.dtype, options.is_int8)
    parts = [(model, form)]
    if draft is not None:
        draft_dtype = _dtype(draft, options.dtype, device)
        parts.append((draft, Format(device, draft_dtype, is_stored or draft_dtype == draft.dtype)))
    sizes = [each.kv_elements_per_token * DTYPE_BYTES[kept.dtype] * block_size for each, kept in parts]
    weights = [weight_bytes(each, kept) for each, kept in parts]
    # They are loaded one after the other.
    loading = [sum(weights[:at]) + loading_bytes(each, kept) for at, (each, kept) in enumerate(parts)]
    return _Frame(
        max_model_len=max_model_len,
        batch_size=batch_size,
        block_size=block_size,
        dtype=dtype,
        shares=shares,
        block_bytes=max(1, sizes[0]),
        draft_block_bytes=sum(sizes[1:]),
        note_bytes=BLOCK_BYTES if model.is_known else 0,
        weight_bytes=sum(weights),
        loading_bytes=max(loading),
        step_bytes=sum(
            step_bytes(each, kept, step) + unreturned_bytes(each, kept)
            for (each, kept), step in zip(parts, steps, strict=False)
        ),
    )


def _blocks(frame: _Frame, asked_bytes: int | None, stated_bytes: int | None) -> int:
    """Returns how many blocks the cache has: as asked, else what is left of the total, else enough for a batch."""
    least = frame.least_blocks
    if asked_bytes is not None:
        if (blocks := asked_bytes // frame.block_bytes) < least:
            raise OptionInvalid(
                "kv_cache_memory_bytes",
                f"{asked_bytes} bytes do not hold one sequence of {frame.max_model_len} tokens: "
                f"use at least {least * frame.block_bytes}, or lower max_model_len",
            )
        return blocks
    if stated_bytes is not None:
        if (blocks := frame.blocks_in(stated_bytes)) < least:
            raise _too_little(frame, stated_bytes, least)
        return blocks
    most = frame.batch_size * frame.max_model_len * frame.block_bytes // frame.block_size
    return max(-(-min(most, DEFAULT_KV_CACHE_BYTES) // frame.block_bytes), least)


def _too_little(frame: _Frame, stated_bytes: int, blocks: int) -> OptionInvalid:
    tokens = f"one sequence of {frame.max_model_len} tokens"
    what = tokens if blocks == frame.least_blocks else f"a KV cache of {format_bytes(blocks * frame.block_bytes)}"
    return OptionInvalid(
        "memory_bytes",
        f"{stated_bytes} bytes do not hold weights of {format_bytes(frame.weight_bytes)}, the run-time and {what}: "
        f"use at least {frame.total_bytes(blocks)}, or lower max_model_len",
    )


def _share(size: int, shares: int) -> int:
    return -(-size // shares)


def _dtype(model: ModelSize, stated: str, device: EngineDevice) -> str:
    if stated not in _AUTO:
        if stated not in DTYPE_BYTES:
            raise OptionInvalid("dtype", f'"{stated}" is not served: use auto, {", ".join(DTYPE_BYTES)}')
        return stated
    if device == "cpu":
        return "float32"
    # A quantized checkpoint names no format to compute in.
    return model.dtype if model.dtype in DTYPE_BYTES else "bfloat16"
