"""Recognizes decoders whose layers are those of Llama, with or without what Qwen, Phi and Gemma add."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from engines.backends.torch_lm.linears import Gate, Norm
from engines.backends.torch_lm.norms import gate_of, norm_of


@dataclass(frozen=True, slots=True)
class Mlp:
    """down(gate(x) * up(x)), with a function of the gate."""

    gate_up: Sequence[nn.Linear]  # the gate and the up, or both in one
    gate: Gate
    down: nn.Linear


@dataclass(frozen=True, slots=True)
class LayerParts:
    """x += after_attention(out(attend(qkv(before_attention(x))))), then the same with the feed-forward block."""

    before_attention: Norm
    qkv: Sequence[nn.Linear]  # queries, keys and values, or all in one
    query_norm: Norm | None  # of each head
    key_norm: Norm | None
    out: nn.Linear
    after_attention: Norm | None
    before_mlp: Norm
    mlp: Mlp | nn.Module  # any module that takes and gives [1, tokens, hidden], if it is not of the usual shape
    after_mlp: Norm | None


@dataclass(frozen=True, slots=True)
class DecoderParts:
    """A whole model."""

    embedding: nn.Embedding
    layers: Sequence[LayerParts]
    rotary: nn.Module
    layer_types: Sequence[str | None]  # what the rotary module is told for each layer, if it is told something
    norm: Norm
    head: nn.Linear
    softcap: float | None  # of the logits


def structure_of(model: Any, layer_count: int) -> DecoderParts | None:
    """Returns the parts of a causal language model of transformers, or None if its modules are others.

    What its code does with them is another question: see `recognize`.
    """
    base = getattr(model, model.base_model_prefix, None)
    config = model.config.get_text_config()
    if not isinstance(base, nn.Module) or _names(base) != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return None
    decoder: Any = base
    layers = [layer_of(layer) for layer in decoder.layers]
    norm, head = norm_of(decoder.norm), model.get_output_embeddings()
    if None in layers or len(layers) != layer_count or norm is None or not isinstance(head, nn.Linear):
        return None
    has_types = isinstance(getattr(decoder.rotary_emb, "rope_type", None), dict)
    return DecoderParts(
        embedding=decoder.embed_tokens,
        layers=[layer for layer in layers if layer is not None],
        rotary=decoder.rotary_emb,
        layer_types=config.layer_types if has_types else [None] * layer_count,
        norm=norm,
        head=head,
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def layer_of(layer: Any) -> LayerParts | None:
    """Returns the parts of a decoder layer, or None if its modules are others."""
    names = _names(layer)
    has_outer_norms = names == {
        "self_attn", "mlp", "input_layernorm", "post_attention_layernorm",
        "pre_feedforward_layernorm", "post_feedforward_layernorm",
    }  # fmt: skip
    if not has_outer_norms and names != {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}:
        return None
    attention, after = layer.self_attn, norm_of(layer.post_attention_layernorm)
    qkv = _linears(attention, ("q_proj", "k_proj", "v_proj"), "qkv_proj")
    before_attention = norm_of(layer.input_layernorm)
    before_mlp = norm_of(layer.pre_feedforward_layernorm) if has_outer_norms else after
    after_mlp = norm_of(layer.post_feedforward_layernorm) if has_outer_norms else None
    inner = _names(attention) - {"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"}
    head_norms = [getattr(attention, name) for name in ("q_norm", "k_norm") if name in inner]
    query_norm, key_norm = [norm_of(norm) for norm in head_norms] if len(head_norms) == 2 else (None, None)
    if inner and not (inner == {"q_norm", "k_norm"} and query_norm and key_norm):
        return None
    if not (before_attention and before_mlp and qkv) or (has_outer_norms and not (after and after_mlp)):
        return None
    return LayerParts(
        before_attention=before_attention,
        qkv=qkv,
        query_norm=query_norm,
        key_norm=key_norm,
        out=attention.o_proj,
        after_attention=after if has_outer_norms else None,
        before_mlp=before_mlp,
        mlp=mlp_of(layer.mlp),
        after_mlp=after_mlp,
    )


def mlp_of(block: Any) -> Mlp | nn.Module:
    """Returns the parts of a feed-forward block, or the block if it is of another shape."""
    gate_up = _linears(block, ("gate_proj", "up_proj"), "gate_up_proj")
    functions = [getattr(block, name, None) for name in ("act_fn", "activation_fn")]
    gate = next((found for function in functions if (found := gate_of(function))), None)
    down = getattr(block, "down_proj", None)
    known = {"gate_proj", "up_proj", "gate_up_proj", "down_proj", "act_fn", "activation_fn"}
    if gate_up and gate and isinstance(down, nn.Linear) and _names(block) <= known:
        return Mlp(gate_up, gate, down)
    assert isinstance(block, nn.Module)
    return block


def _linears(module: Any, apart: Sequence[str], together: str) -> list[nn.Linear]:
    """Returns the linear layers of these names, or the one of that name; nothing if they are not there."""
    names = [together] if hasattr(module, together) else apart
    found = [getattr(module, name, None) for name in names]
    linears = [linear for linear in found if isinstance(linear, nn.Linear)]
    have_biases = {linear.bias is not None for linear in linears}
    return linears if len(linears) == len(found) and len(have_biases) == 1 else []


def _names(module: nn.Module) -> set[str]:
    return set(_children(module))


def _children(module: nn.Module) -> Iterator[str]:
    return (name for name, child in module.named_children() if not isinstance(child, nn.Dropout | nn.Identity))
