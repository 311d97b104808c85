"""Reads configuration and weights of a model directory; refuses what is not whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from engines.backends.torch_lm.counted import counted
from engines.loading import Count
from roundhouse.kit.errors import InvalidArgument, NotFound, NotServed
from roundhouse.v1 import errors_pb2

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(directory: Path) -> Any:
    """Returns the configuration of a model directory. Raises NotFound, InvalidArgument (MODEL_BROKEN)."""
    if not (directory / "config.json").is_file():
        reason = errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
        raise NotFound(f'"{directory}" is no model directory: it has no config.json', reason=reason)
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _broken(directory, "config.json", error) from error


def read_model(
    directory: Path, config: Any, dtype: torch.dtype, device: torch.device, count: Count | None = None
) -> Any:
    """Returns the model with its own attention. Raises InvalidArgument (MODEL_BROKEN), NotServed.

    count: counts what is read of the files.
    """
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise NotServed(f'models of family "{config.model_type}" are no causal language models: use another engine')
    _quieten()
    loader: Any = AutoModelForCausalLM
    try:
        with counted(count or Count()):
            model, loading = loader.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,  # the other format runs code of whoever wrote it
                output_loading_info=True,
            )
    except Exception as error:
        raise _broken(directory, "the weights", error) from error
    # transformers would go on with random numbers in their place.
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        text = f"{len(missing)} tensors are missing, {missing[0]} first"
        raise _broken(directory, "the weights", ValueError(text))
    return model.to(device).eval().requires_grad_(False)


def dtype_of(config: Any, wanted: str, device: torch.device) -> torch.dtype:
    """Returns the number format to compute in. `auto` is the checkpoint's own on CUDA, and float32 on a CPU."""
    if wanted not in {"", "auto"}:
        if wanted not in DTYPES:
            raise InvalidArgument(f'dtype "{wanted}" is unknown: use auto, {", ".join(DTYPES)}')
        return DTYPES[wanted]
    own = getattr(config, "dtype", None)
    return own if device.type == "cuda" and isinstance(own, torch.dtype) else torch.float32


def _quieten() -> None:
    library: Any = logging
    library.disable_progress_bar()
    library.set_verbosity_error()


def _broken(directory: Path, what: str, error: Exception) -> InvalidArgument:
    line = str(error).strip().partition("\n")[0]
    reason = errors_pb2.ERROR_REASON_MODEL_BROKEN
    return InvalidArgument(
        f'{what} in "{directory}" cannot be read ({line}): repair the model directory', reason=reason
    )
