"""What a model is made of, and what that takes of a device: weights, what loading them takes, what a step takes. Pure.

The numbers are those of the torch engine, measured by tests/integration/test_memory.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EngineDevice = Literal["cpu", "cuda"]

MIB = 1024 * 1024
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
# An interpreter with torch, transformers and gRPC takes 480 MiB of memory, a CUDA context with its libraries less.
RUNTIME_BYTES = 512 * MIB
_KEPT_BYTES = 32 * MIB  # that an engine's allocator keeps of the small pieces which loading has freed
FLOAT_BYTES = 4  # of logits, of what they are drawn with, and of rows that are laid out for C


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model is made of, as its files say. The widths are 0 if an old agent has looked at them."""

    parameter_count: int
    weight_bytes: int
    dtype: str  # of the checkpoint, for example `bfloat16`
    context_tokens: int
    kv_elements_per_token: int
    linear_parameter_count: int = 0  # that are quantized, besides those of the output layer
    tied_parameter_count: int = 0  # that the output layer shares with the embeddings
    largest_tensor_parameter_count: int = 0
    hidden_size: int = 0
    intermediate_size: int = 0
    query_size: int = 0
    vocabulary_size: int = 0
    layer_count: int = 0

    @property
    def is_known(self) -> bool:
        """Tells whether its widths are known."""
        return self.hidden_size > 0


@dataclass(frozen=True, slots=True)
class Format:
    """How an engine keeps and computes a model."""

    device: EngineDevice
    dtype: str
    is_as_stored: bool  # weights stay what they are in the files
    is_int8: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The most that is computed at a time."""

    token_count: int
    logits_count: int  # tokens of which the logits are wanted
    context_tokens: int  # of the longest sequence


def weight_bytes(model: ModelSize, form: Format) -> int:
    """Returns what the weights take once they are loaded."""
    size = DTYPE_BYTES[form.dtype]
    # On a CPU the output layer is packed, so it shares nothing with the embeddings any more; quantized, nowhere.
    untied = model.tied_parameter_count if form.device == "cpu" or form.is_int8 else 0
    stored = model.weight_bytes if form.is_as_stored else model.parameter_count * size
    # Embeddings are used where they are, and what is mapped is no memory of ours. All else is packed.
    mapped = min(model.hidden_size * model.vocabulary_size, model.parameter_count) if _is_mapped(model, form) else 0
    quantized = _quantized_count(model) if form.is_int8 else 0
    return stored + (untied - mapped - quantized) * size + quantized + _scale_bytes(model, quantized)


def loading_bytes(model: ModelSize, form: Format) -> int:
    """Returns the most that loading takes: the weights as they will be, and what is being changed twice."""
    if not model.is_known:
        return 0
    size, after = DTYPE_BYTES[form.dtype], weight_bytes(model, form)
    layer = 2 * model.hidden_size * model.intermediate_size * size
    largest = max(model.largest_tensor_parameter_count * size, layer)
    if not form.is_int8:
        return after + largest
    # Layer by layer, by way of numbers, their absolutes and quotients: the first beside all that is not quantized yet,
    # the output layer, which is the last, beside all that is.
    if _is_mapped(model, form):
        return after + _INT8_COPIES * largest
    whole = weight_bytes(model, Format(form.device, form.dtype, form.is_as_stored))
    return max(whole + largest, whole + _INT8_COPIES * layer, after + (_INT8_COPIES + 1) * largest)


_INT8_COPIES = 3


def unreturned_bytes(model: ModelSize, form: Format) -> int:
    """Returns what the allocator keeps of a host's memory that loading has freed. See `engines.heap`."""
    return _KEPT_BYTES if model.is_known and form.device == "cpu" else 0


def step_bytes(model: ModelSize, form: Format, step: Step) -> int:
    """Returns what the largest step takes beside weights and cache."""
    if not model.is_known:
        return 0
    size, tokens = DTYPE_BYTES[form.dtype], step.token_count
    kv_size = model.kv_elements_per_token // max(1, model.layer_count)
    width = 4 * model.hidden_size + 2 * model.query_size + kv_size + 3 * model.intermediate_size
    laid_out = FLOAT_BYTES * max(model.hidden_size, model.query_size, model.intermediate_size)
    return tokens * (width * size + laid_out) + _logits_bytes(model, form, step) + _turns_bytes(kv_size, step)


def _logits_bytes(model: ModelSize, form: Format, step: Step) -> int:
    logits = step.logits_count * model.vocabulary_size
    part = _DRAWN_AT_ONCE[form.device]
    return (logits + _DRAWN_COPIES * min(logits, part)) * FLOAT_BYTES


_DRAWN_AT_ONCE: Mapping[EngineDevice, int] = {"cpu": 1 << 22, "cuda": 1 << 24}  # logits
_DRAWN_COPIES = 3
_WIDEST_HEAD = 256


def _turns_bytes(kv_size: int, step: Step) -> int:
    """Returns what the cosines and sines of all positions take, which are copied once when there are more of them."""
    return 2 * step.context_tokens * min(kv_size // 2, _WIDEST_HEAD) * FLOAT_BYTES


def _quantized_count(model: ModelSize) -> int:
    return model.linear_parameter_count + model.hidden_size * model.vocabulary_size


def _scale_bytes(model: ModelSize, quantized: int) -> int:
    """Returns what one scale for each output takes, of layers that have as many inputs as the narrowest."""
    inputs = min(model.hidden_size, model.query_size, model.intermediate_size)
    return quantized // max(1, inputs) * FLOAT_BYTES


def _is_mapped(model: ModelSize, form: Format) -> bool:
    """Tells whether the engine maps the files, whose number format it keeps."""
    return form.device == "cpu" and form.dtype == model.dtype
