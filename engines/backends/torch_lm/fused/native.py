"""All layers of a decoder in one call of C, through which other threads of Python go on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import addressof, c_float, c_int, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from engines.backends.torch_lm.fused.layer import PackedLayer, PackedMlp
from engines.backends.torch_lm.kernels.interface import Attention
from engines.backends.torch_lm.kernels.native import NativeAttention
from engines.backends.torch_lm.linears import Linear, NativeLinear
from engines.backends.torch_lm.step import Step

_MOST_TURNS = 8
_SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}

# The step, what its ids are embedded as, and the cosines and sines of each kind of rotation. Returns logits.
Layers = Callable[[Step, Tensor, Sequence[tuple[Tensor, Tensor]]], Tensor]


class _Layer(ctypes.Structure):
    """`struct decoder_layer` in decoder.c."""

    _fields_ = [
        ("qkv", c_void_p),
        ("out", c_void_p),
        ("gate_up", c_void_p),
        ("down", c_void_p),
        ("attention", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("after_attention", c_void_p),
        ("after_mlp", c_void_p),
        ("head_eps", c_float),
        ("after_attention_eps", c_float),
        ("after_mlp_eps", c_float),
        ("turn", c_int32),
    ]


class _Turn(ctypes.Structure):
    _fields_ = [("cos", c_void_p), ("sin", c_void_p), ("step", c_int64), ("half", c_int64)]


class _Step(ctypes.Structure):
    """`struct step` in decoder.c."""

    _fields_ = [
        ("rows", c_void_p),
        ("wanted", c_void_p),
        ("tokens", c_int64),
        ("wanted_count", c_int64),
        ("turns", _Turn * _MOST_TURNS),
    ]


def bind_native(
    layers: Sequence[PackedLayer], turns: Sequence[int], attentions: Sequence[Attention], head: Linear
) -> Layers | None:
    """Returns all layers with their caches, and the head; None if one of them is not wholly in C.

    turns: which kind of rotation each layer has.
    """
    if not isinstance(head, NativeLinear) or max(turns) >= _MOST_TURNS:
        return None
    described = (_Layer * len(layers))()
    for each, layer, turn, attention in zip(described, layers, turns, attentions, strict=True):
        mlp = layer.mlp
        if not isinstance(mlp, PackedMlp) or not isinstance(attention, NativeAttention):
            return None
        linears = {"qkv": layer.qkv, "out": layer.out, "gate_up": mlp.gate_up, "down": mlp.down}
        for name, linear in linears.items():
            if not isinstance(linear, NativeLinear):
                return None
            setattr(each, name, linear.address)
        each.attention, each.turn = attention.address, turn
        if layer.head_norm is not None:
            each.query_norm, each.key_norm = layer.head_norm.query.data_ptr(), layer.head_norm.key.data_ptr()
            each.head_eps = layer.head_norm.eps
        for name in ("after_attention", "after_mlp"):
            norm = getattr(layer, name)
            if norm is not None:
                setattr(each, name, norm.weight.data_ptr())
                setattr(each, f"{name}_eps", norm.eps)
    return _Native(described, head, (list(layers), list(attentions)))


class _Native:
    """See `Layers`."""

    def __init__(self, described: Any, head: NativeLinear, kept: object) -> None:
        """`kept` is what the description points to."""
        self._described, self._head, self._kept = described, head, kept
        self._at, self._count, self._threads = addressof(described), len(described), head.threads
        arguments: list[Any] = [c_void_p, c_int64, c_void_p, c_void_p, c_void_p, c_void_p, c_int]
        self._functions = {}
        for dtype, suffix in _SUFFIXES.items():
            function = head.library[f"decoder_{suffix}"]
            function.argtypes, function.restype = arguments, c_int
            self._functions[dtype] = function

    def __call__(self, step: Step, x: Tensor, turns: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        described = _Step(step.rows.address, step.wanted.data_ptr(), x.shape[0], step.wanted.shape[0])
        for each, (cos, sin) in zip(described.turns, turns, strict=False):
            each.cos, each.sin, each.step, each.half = cos.data_ptr(), sin.data_ptr(), cos.stride(0), cos.shape[1]
        logits = torch.empty(step.wanted.shape[0], self._head.columns)
        failed = self._functions[x.dtype](
            self._at,
            self._count,
            self._head.address,
            addressof(described),
            x.data_ptr(),
            logits.data_ptr(),
            self._threads,
        )
        if failed:
            raise MemoryError("the layers found no memory to work in")
        return logits
