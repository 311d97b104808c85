"""What the compiled library has, as ctypes sees it."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from typing import Any

_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    # layer, rows, output, queries and their steps, threads
    "attend": ([c_void_p] * 4 + [c_int64] * 2 + [c_int], c_int),
    # layer, rows, keys and their steps, values and theirs, threads
    "write": ([c_void_p] * 3 + [c_int64] * 2 + [c_void_p] + [c_int64] * 2 + [c_int], None),
    # layer, rows, qkv and its step, turning, threads
    "write_qkv": ([c_void_p] * 3 + [c_int64, c_void_p, c_int], None),
    # output, x and its step, residual and its step, weight, bias
    # is_float, is_centred, rows, dim, eps, offset, threads
    "norm": (
        [
            *(c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_void_p),
            *(c_int, c_int, c_int64, c_int64, c_float, c_float, c_int),
        ],
        None,
    ),
    # output, gate_up and its step, rows, dim, threads
    "silu_mul": ([c_void_p] * 2 + [c_int64] * 3 + [c_int], None),
    "gelu_tanh_mul": ([c_void_p] * 2 + [c_int64] * 3 + [c_int], None),
}


class Layer(ctypes.Structure):
    """`struct layer` in layer.h."""

    _fields_ = [
        ("keys", c_void_p),
        ("values", c_void_p),
        ("sinks", c_void_p),
        ("key_block", c_int64),
        ("key_head", c_int64),
        ("value_block", c_int64),
        ("value_head", c_int64),
        ("block_size", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("key_dim", c_int64),
        ("value_dim", c_int64),
        ("window", c_int64),
        ("scale", c_float),
        ("softcap", c_float),
    ]


class Turning(ctypes.Structure):
    """`struct turning` in layer.h."""

    _fields_ = [
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("query_weight", c_void_p),
        ("key_weight", c_void_p),
        ("step", c_int64),
        ("half", c_int64),
        ("is_float", c_int64),
        ("eps", c_float),
        ("offset", c_float),
    ]


class Functions:
    """The functions for one element type, ready to be called."""

    attend: Any
    write: Any
    write_qkv: Any
    norm: Any
    silu_mul: Any
    gelu_tanh_mul: Any

    def __init__(self, library: ctypes.CDLL, suffix: str) -> None:
        """`suffix` is what the names of the type's functions end with."""
        for name, (arguments, result) in _SIGNATURES.items():
            function = library[f"{name}_{suffix}"]
            function.argtypes, function.restype = arguments, result
            setattr(self, name, function)
