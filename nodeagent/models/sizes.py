"""Sizes of a model that decide what memory an engine needs for it beyond the sum of its weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nodeagent.models.numbers import HEADS, HIDDEN, LAYERS, number
from nodeagent.models.safetensors import Tensor

_INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")
_EXPERT = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
_PICKS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k")
_SHARED = ("shared_expert_intermediate_size",)
_VOCABULARY = ("vocab_size",)
_WIDENING = 4  # of a feed-forward of which the configuration says nothing: that of GPT-2, and of its heirs
# Ends of names, without `.weight`. Families call the same thing differently.
_EMBEDDINGS = (
    "embed_tokens", "wte", "wpe", "word_embeddings", "tok_embeddings", "embed_in", "embed_positions",
)  # fmt: skip
_OUTPUTS = ("lm_head", "embed_out", "output")
_ROUTERS = ("gate", "router")  # of experts: matrices, and no layers to torch
# Their matrices are no linear layers to torch, so no engine quantizes them.
_CONVOLUTIONS = frozenset({"gpt2", "openai-gpt"})


@dataclass(frozen=True, slots=True)
class Sizes:
    """See the fields of the same names in `ModelFacts`."""

    linear_parameter_count: int
    tied_parameter_count: int
    largest_tensor_parameter_count: int
    hidden_size: int
    intermediate_size: int
    query_size: int
    vocabulary_size: int
    layer_count: int
    quantization_method: str


def sizes_of(whole: Mapping[str, Any], config: Mapping[str, Any], tensors: Sequence[Tensor]) -> Sizes:
    """Returns the sizes; raises Broken for a configuration without heads, layers or a width.

    whole: the configuration; config: the part of it that is about language.
    """
    heads, hidden = number(config, HEADS), number(config, HIDDEN)
    outputs = [each for each in tensors if _is(each, _OUTPUTS)]
    embeddings = [each for each in tensors if _is(each, _EMBEDDINGS)]
    ids = max((each.shape[0] for each in (*outputs, *embeddings)), default=0)
    quantization = whole.get("quantization_config")
    return Sizes(
        linear_parameter_count=sum(
            each.parameter_count for each in tensors if _is_linear(each, str(whole.get("model_type")))
        ),
        tied_parameter_count=0 if outputs else max((each.parameter_count for each in embeddings), default=0),
        largest_tensor_parameter_count=max((each.parameter_count for each in tensors), default=0),
        hidden_size=hidden,
        intermediate_size=_intermediate(config, hidden),
        query_size=heads * number(config, ("head_dim",), default=hidden // heads),
        vocabulary_size=_most(config, _VOCABULARY, ids),
        layer_count=number(config, LAYERS),
        quantization_method=str(quantization.get("quant_method", "")) if isinstance(quantization, dict) else "",
    )


def _intermediate(config: Mapping[str, Any], hidden: int) -> int:
    """Returns the widest that a token becomes: some families mix layers of one kind and of another."""
    dense = _most(config, _INTERMEDIATE, _WIDENING * hidden)
    picked = _most(config, _PICKS, 0) * _most(config, _EXPERT, dense)
    return max(dense, picked + _most(config, _SHARED, 0))


def _most(config: Mapping[str, Any], names: Sequence[str], default: int) -> int:
    """Returns a number, or the largest where each layer has its own; the default for whatever else may stand there."""
    for name in names:
        value = config.get(name)
        numbers = [each for each in (value if isinstance(value, list) else [value]) if type(each) is int and each > 0]
        if numbers:
            return max(numbers)
    return default


def _is_linear(tensor: Tensor, model_type: str) -> bool:
    """Tells whether torch keeps it as a linear layer: experts are one tensor of three dimensions there."""
    if len(tensor.shape) != 2 or not tensor.name.endswith(".weight") or model_type in _CONVOLUTIONS:
        return False
    return not (_is(tensor, (*_EMBEDDINGS, *_OUTPUTS, *_ROUTERS)) or ".experts." in tensor.name)


def _is(tensor: Tensor, names: Sequence[str]) -> bool:
    return tensor.name.removesuffix(".weight").rpartition(".")[2] in names and len(tensor.shape) == 2
