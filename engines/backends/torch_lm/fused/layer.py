"""The layers of a decoder with their weights packed, and one of them as a few calls from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engines.backends.torch_lm.fused.parts import LayerParts, Mlp
from engines.backends.torch_lm.kernels.interface import Attention, HeadNorm, Kernels
from engines.backends.torch_lm.kernels.rows import Rows
from engines.backends.torch_lm.linears import Gate, Linear, Linears, Norm
from engines.backends.torch_lm.quantization import joined, weight_of

# x, the rows of the step, cosines and sines, and which tokens' results are wanted (None: all). May change x.
Layer = Callable[[Tensor, Rows, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, slots=True)
class PackedMlp:
    """A feed-forward block of the usual shape."""

    gate_up: Linear  # norms what it is given
    down: Linear


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer, apart from any cache. See `parts.LayerParts`."""

    qkv: Linear  # norms what it is given
    head_norm: HeadNorm | None
    out: Linear
    after_attention: Norm | None
    before_mlp: Norm
    mlp: PackedMlp | nn.Module
    after_mlp: Norm | None


def pack(parts: LayerParts, linears: Linears) -> PackedLayer:
    """Returns the layer. Takes the weights out of the linear modules."""
    head_norm = None
    if parts.query_norm is not None and parts.key_norm is not None:
        head_norm = HeadNorm(parts.query_norm.weight, parts.key_norm.weight, parts.query_norm.eps)
    mlp: PackedMlp | nn.Module
    if isinstance(parts.mlp, Mlp):
        gate_up = _pack(linears, parts.mlp.gate_up, parts.before_mlp, parts.mlp.gate)
        mlp = PackedMlp(gate_up, _pack(linears, [parts.mlp.down]))
    else:
        mlp = parts.mlp
    return PackedLayer(
        qkv=_pack(linears, parts.qkv, parts.before_attention),
        head_norm=head_norm,
        out=_pack(linears, [parts.out]),
        after_attention=parts.after_attention,
        before_mlp=parts.before_mlp,
        mlp=mlp,
        after_mlp=parts.after_mlp,
    )


def bind(packed: PackedLayer, attention: Attention, kernels: Kernels) -> Layer:
    """Returns the layer, with the cache that it attends over."""
    qkv, head_norm = packed.qkv, packed.head_norm
    put_out = _adding(packed.out, packed.after_attention, kernels)
    put_mlp = _feed_forward(packed, kernels)

    def layer(x: Tensor, rows: Rows, cos: Tensor, sin: Tensor, wanted: Tensor | None) -> Tensor:
        query = attention.write_qkv(qkv(x), rows, cos, sin, head_norm)
        if wanted is not None and not len(wanted):
            return x[:0]
        seen = attention.attend(query, rows).flatten(1)
        if wanted is not None:
            x, seen = x.index_select(0, wanted), seen.index_select(0, wanted)
        put_out(seen, x)
        put_mlp(x)
        return x

    return layer


def _feed_forward(packed: PackedLayer, kernels: Kernels) -> Callable[[Tensor], object]:
    mlp, norm = packed.mlp, packed.before_mlp
    if isinstance(mlp, PackedMlp):
        gate_up, put_down = mlp.gate_up, _adding(mlp.down, packed.after_mlp, kernels)
        return lambda x: put_down(gate_up(x), x)
    put_block = _adding(_block(mlp), packed.after_mlp, kernels)
    return lambda x: put_block(kernels.rms_norm(x, norm.weight, norm.eps), x)


def _block(module: nn.Module) -> Linear:
    def block(x: Tensor, *, of: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
        assert of is None
        given = module(x[None])
        y: Tensor = (given[0] if isinstance(given, tuple) else given)[0]
        return y if onto is None else onto.add_(y)

    return block


def _adding(linear: Linear, norm: Norm | None, kernels: Kernels) -> Callable[[Tensor, Tensor], object]:
    """Returns what adds the linear layer's result, normed if need be, to its second argument."""
    if norm is None:
        return lambda x, onto: linear(x, onto=onto)
    return lambda x, onto: onto.add_(kernels.rms_norm(linear(x), norm.weight, norm.eps))


def _pack(linears: Linears, modules: Sequence[nn.Linear], norm: Norm | None = None, gate: Gate | None = None) -> Linear:
    """Returns modules that take the same input as one layer, and takes their weights."""
    weight = joined([weight_of(module) for module in modules])
    bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
    for module in modules:
        del module.weight
    return linears.pack(weight, bias, norm=norm, gate=gate)
