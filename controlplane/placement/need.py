"""How much memory a replica needs, and the numbers with which its engine takes just that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from controlplane.model import Need

EngineDevice = Literal["cpu", "cuda"]

MIB = 1024 * 1024
OVERHEAD_BYTES = 512 * MIB  # the run-time, a CUDA context and the activations of one step
DEFAULT_KV_CACHE_BYTES = 1024 * MIB  # the most that is taken unasked
DEFAULT_BATCH_SIZE: Mapping[EngineDevice, int] = {"cpu": 32, "cuda": 256}
DEFAULT_BLOCK_SIZE = 16
BLOCK_SIZES = (8, 16, 32, 64, 128)
SHORTEST_CONTEXT = 16
MOST_BYTES = 2**63 - 1  # what a field of a message holds
_AUTO = ("", "auto")
_DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model is made of, as its files say."""

    parameter_count: int
    weight_bytes: int
    dtype: str  # of the checkpoint, for example `bfloat16`
    context_tokens: int
    kv_elements_per_token: int


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """The engine options that decide its memory, as stated; None or empty where they are not."""

    max_model_len: int | None = None
    batch_size: int | None = None
    block_size: int | None = None
    kv_cache_memory_bytes: int | None = None
    dtype: str = ""


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
    """An option that this model cannot have; `field` is its name in `EngineOptions`."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field, self.description = field, description


def compute_need(
    model: ModelSize,
    options: CacheOptions,
    device: EngineDevice,
    *,
    stated_bytes: int | None = None,
    draft: ModelSize | None = None,
) -> tuple[Need, Resolved]:
    """Returns what one replica takes of its device, and the numbers with which its engine takes just that.

    stated_bytes: the total that the user states instead; the parts stay as computed. draft: a model that guesses tokens
    ahead beside the first. Raises OptionInvalid.
    """
    resolved = _resolve(model, options, device, draft)
    weights = sum(_weights(each, options, device) for each in (model, draft) if each is not None)
    cache = resolved.kv_cache_memory_bytes + resolved.draft_kv_cache_memory_bytes
    total = weights + cache + OVERHEAD_BYTES if stated_bytes is None else stated_bytes
    if (most := max(total, weights + cache)) > MOST_BYTES:
        field = "max_model_len" if options.kv_cache_memory_bytes is None else "kv_cache_memory_bytes"
        raise OptionInvalid(field, f"one replica would take {most} bytes, more than can be counted: use less")
    need = Need(total, weights, cache, OVERHEAD_BYTES, is_stated=stated_bytes is not None, device=device)
    return need, resolved


def _weights(model: ModelSize, options: CacheOptions, device: EngineDevice) -> int:
    dtype = _dtype(model, options.dtype, device)
    is_as_stored = dtype == model.dtype or (device == "cuda" and options.dtype in _AUTO)
    return model.weight_bytes if is_as_stored else model.parameter_count * _DTYPE_BYTES[dtype]


def _resolve(model: ModelSize, options: CacheOptions, device: EngineDevice, draft: ModelSize | None) -> Resolved:
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
    token_bytes = model.kv_elements_per_token * _DTYPE_BYTES[dtype]
    wanted = options.kv_cache_memory_bytes
    cache = _default_cache(token_bytes, max_model_len, batch_size, block_size) if wanted is None else wanted
    block_bytes = token_bytes * block_size
    least = _least_blocks(max_model_len, block_size) * block_bytes
    if cache < least:
        raise OptionInvalid(
            "kv_cache_memory_bytes",
            f"{cache} bytes do not hold one sequence of {max_model_len} tokens: "
            f"use at least {least}, or lower max_model_len",
        )
    whole = cache // block_bytes * block_bytes if block_bytes else cache  # what is left over would hold no block
    drafted = 0
    if draft is not None:
        drafted_token_bytes = draft.kv_elements_per_token * _DTYPE_BYTES[_dtype(draft, options.dtype, device)]
        drafted = whole // max(1, token_bytes) * drafted_token_bytes
    return Resolved(max_model_len, batch_size, block_size, whole, dtype, drafted)


def _dtype(model: ModelSize, stated: str, device: EngineDevice) -> str:
    if stated not in _AUTO:
        if stated not in _DTYPE_BYTES:
            raise OptionInvalid("dtype", f'"{stated}" is not served: use auto, {", ".join(_DTYPE_BYTES)}')
        return stated
    if device == "cpu":
        return "float32"
    return (
        model.dtype if model.dtype in _DTYPE_BYTES else "bfloat16"
    )  # a quantized checkpoint names no format to compute in


def _default_cache(token_bytes: int, max_model_len: int, batch_size: int, block_size: int) -> int:
    block_bytes = token_bytes * block_size
    most = min(batch_size * max_model_len * token_bytes, DEFAULT_KV_CACHE_BYTES)
    blocks = max(-(-most // max(1, block_bytes)), _least_blocks(max_model_len, block_size))
    return blocks * block_bytes


def _least_blocks(max_model_len: int, block_size: int) -> int:
    return -(-max_model_len // block_size) + 1  # one to spare: a sequence at the limit does not keep all others out
