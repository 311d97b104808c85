"""Makes a runner, a tokenizer and a description of a model directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engines.backends.torch_lm.context import context_tokens
from engines.backends.torch_lm.fingerprint import fingerprint, tokenizer_fingerprint
from engines.backends.torch_lm.place import Wishes, place_on_cpu, place_on_cuda
from engines.backends.torch_lm.quantization import check_quantization, quantize
from engines.backends.torch_lm.weights import dtype_of, read_config, read_model
from engines.loading import Count, LoadStage, OnStage, to_nobody
from engines.loop.interfaces import Runner
from engines.text.generation_config import GenerationConfig, read_generation_config
from engines.text.tokenizer import Tokenizer, load_tokenizer
from roundhouse.kit.errors import NoCapacity
from roundhouse.kit.units import format_bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run."""

    runner: Runner
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
    tokenizer_fingerprint: str
    numerics: str  # what computes, in words
    is_batch_invariant: bool  # whether, in a check at start-up, no sequence's logits depended on another's


def load_model(
    directory: Path,
    *,
    device: str,
    dtype: str = "auto",
    quantization: str = "",
    attention: str = "auto",
    is_compiled: bool = False,
    block_size: int = 16,
    kv_cache_bytes: int,
    max_model_len: int | None = None,
    batch_size: int = 32,
    max_batched_tokens: int = 512,
    template_variables: Mapping[str, object] | None = None,
    chat_template: str = "",
    on_stage: OnStage = to_nobody,
) -> Loaded:
    """Loads a model directory, and makes sure that it computes what it should.

    max_model_len: the longest context that the model works with if None. batch_size, max_batched_tokens: the most rows
    and tokens of a step, for which a GPU is made ready. template_variables: what the chat template is told.
    chat_template: in place of that of the files, if any. on_stage: told what is being done. Raises NotFound,
    InvalidArgument, NotServed or NoCapacity, each with a message that can be shown as it is.
    """
    choose_thread_count()
    check_quantization(quantization)
    target = torch.device(device)
    on_stage("reading the configuration")
    config = read_config(directory)
    wishes = Wishes(
        block_size=block_size,
        kv_cache_bytes=kv_cache_bytes,
        context=context_tokens(config, max_model_len),
        attention=attention,
        is_compiled=is_compiled,
        batch_size=batch_size,
        max_batched_tokens=max_batched_tokens,
    )
    number_format = dtype_of(config, dtype, target)
    tokenizer = load_tokenizer(directory, template_variables, chat_template)
    defaults = read_generation_config(directory)
    counts: list[int] = []

    def read() -> Any:
        count = Count()
        on_stage("loading weights", LoadStage.LOADING_WEIGHTS, count)
        model = read_model(directory, config, number_format, target, count)
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
        quantize(model, quantization)
        on_stage("testing the model", LoadStage.WARMING_UP)
        return model

    place = place_on_cpu if target.type == "cpu" else place_on_cuda
    placed = place(read, wishes, on_stage)
    _check_size(placed.total_blocks, wishes)
    hashed = Count()
    on_stage("hashing the weights", LoadStage.HASHING_WEIGHTS, hashed)
    dtype_name = str(number_format).removeprefix("torch.")
    return Loaded(
        runner=placed.runner,
        tokenizer=tokenizer,
        defaults=defaults,
        model_type=config.model_type,
        parameter_count=counts[0],
        dtype=dtype_name,
        device=target.type,
        max_model_len=wishes.context,
        vocabulary_size=config.get_text_config().vocab_size,
        block_size=block_size,
        total_blocks=placed.total_blocks,
        fingerprint=fingerprint(
            directory,
            dtype=dtype_name,
            device=target,
            numerics=placed.numerics,
            quantization=quantization,
            template_variables=template_variables,
            chat_template=chat_template,
            count=hashed,
        ),
        tokenizer_fingerprint=tokenizer_fingerprint(
            directory, template_variables=template_variables, chat_template=chat_template
        ),
        numerics=placed.numerics,
        is_batch_invariant=placed.is_batch_invariant,
    )


def choose_thread_count() -> None:
    """Takes half of the cores unless `OMP_NUM_THREADS` says otherwise: a small machine runs several engines."""
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))


def _check_size(total_blocks: int, wishes: Wishes) -> None:
    if total_blocks < -(-wishes.context // wishes.block_size):
        raise NoCapacity(
            f"a KV cache of {format_bytes(wishes.kv_cache_bytes)} holds {total_blocks * wishes.block_size} tokens, "
            f"and one sequence may have {wishes.context}: give it more or lower max_model_len"
        )
