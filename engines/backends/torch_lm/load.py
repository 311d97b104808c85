"""Makes a runner, a tokenizer and a description of a model directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engines.backends.torch_lm.cache import KvCache, block_bytes
from engines.backends.torch_lm.context import context_tokens
from engines.backends.torch_lm.fingerprint import fingerprint
from engines.backends.torch_lm.runner import TorchRunner
from engines.backends.torch_lm.self_test import adopt
from engines.backends.torch_lm.weights import dtype_of, read_config, read_model
from engines.text.generation_config import GenerationConfig, read_generation_config
from engines.text.tokenizer import Tokenizer, load_tokenizer
from roundhouse.kit.errors import NoCapacity
from roundhouse.kit.units import format_bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run."""

    runner: TorchRunner
    tokenizer: Tokenizer
    defaults: GenerationConfig
    model_type: str
    parameter_count: int
    dtype: str
    device: str  # `cpu` or `cuda`
    max_model_len: int
    vocabulary_size: int  # of the model, which may have more ids than the tokenizer
    block_size: int
    total_blocks: int
    fingerprint: str


def load_model(
    directory: Path,
    *,
    device: str,
    dtype: str = "auto",
    block_size: int = 16,
    kv_cache_bytes: int,
    max_model_len: int | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Loaded:
    """Loads a model directory, and makes sure that it computes what it should.

    max_model_len: the longest context that the model works with if None. on_stage: told what is being done, in words.
    Raises NotFound, InvalidArgument, NotServed or NoCapacity, each with a message that can be shown as it is.
    """
    choose_thread_count()
    target = torch.device(device)
    on_stage("reading the configuration")
    config = read_config(directory)
    context = context_tokens(config, max_model_len)
    number_format = dtype_of(config, dtype, target)
    tokenizer = load_tokenizer(directory)
    defaults = read_generation_config(directory)
    on_stage("loading weights")
    model = read_model(directory, config, number_format, target)
    on_stage("testing the model")
    shapes = adopt(model, target)
    on_stage("allocating the KV cache")
    total_blocks = kv_cache_bytes // block_bytes(shapes, block_size, number_format)
    _check_size(total_blocks, block_size, context, kv_cache_bytes)
    cache = KvCache(shapes, blocks=total_blocks, block_size=block_size, dtype=number_format, device=target)
    on_stage("hashing the weights")
    dtype_name = str(number_format).removeprefix("torch.")
    return Loaded(
        runner=TorchRunner(model, cache, target),
        tokenizer=tokenizer,
        defaults=defaults,
        model_type=config.model_type,
        parameter_count=sum(parameter.numel() for parameter in model.parameters()),
        dtype=dtype_name,
        device=target.type,
        max_model_len=context,
        vocabulary_size=config.get_text_config().vocab_size,
        block_size=block_size,
        total_blocks=total_blocks,
        fingerprint=fingerprint(directory, dtype=dtype_name, device=target),
    )


def choose_thread_count() -> None:
    """Takes half of the cores unless `OMP_NUM_THREADS` says otherwise: a small machine runs several engines."""
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))


def _check_size(total_blocks: int, block_size: int, context: int, kv_cache_bytes: int) -> None:
    needed = -(-context // block_size)
    if total_blocks < needed:
        raise NoCapacity(
            f"a KV cache of {format_bytes(kv_cache_bytes)} holds {total_blocks * block_size} tokens, "
            f"and one sequence may have {context}: give it more or lower max_model_len"
        )
