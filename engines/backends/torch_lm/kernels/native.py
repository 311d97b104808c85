"""The kernels in C, called through ctypes, which lets go of the interpreter's lock meanwhile. For CPUs only."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import addressof
from pathlib import Path

import torch
from torch import Tensor

from engines.backends.torch_lm.kernels.interface import HeadNorm
from engines.backends.torch_lm.kernels.library import Functions, Layer, Turning
from engines.backends.torch_lm.kernels.rows import Rows

_SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_LOG2_E = 1.4426950408889634


class NativeKernels:
    """See `interface.Kernels`."""

    def __init__(self, library: Path, name: str, threads: int) -> None:
        """Raises OSError if the library cannot be loaded here."""
        loaded = ctypes.CDLL(str(library))
        self._functions = {dtype: Functions(loaded, suffix) for dtype, suffix in _SUFFIXES.items()}
        self._threads = threads
        self.name = name

    def attention(
        self,
        keys: Tensor,
        values: Tensor,
        *,
        heads: int,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> NativeAttention:
        """See `interface.Kernels`."""
        assert keys.stride()[2:] == (1, keys.shape[2]), "keys lie across"
        assert values.stride()[2:] == (values.shape[3], 1), "values lie along"
        sinks = None if sinks is None else sinks.float().contiguous()
        layer = Layer(
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            sinks=_address(sinks),
            key_block=keys.stride(0),
            key_head=keys.stride(1),
            value_block=values.stride(0),
            value_head=values.stride(1),
            block_size=keys.shape[2],
            heads=heads,
            kv_heads=keys.shape[1],
            key_dim=keys.shape[3],
            value_dim=values.shape[3],
            window=window or 0,
            # The softmax is one of powers of two.
            scale=scale / softcap if softcap else scale * _LOG2_E,
            softcap=softcap * _LOG2_E if softcap else 0.0,
        )
        return NativeAttention(self._functions[keys.dtype], keys.dtype, layer, (keys, values, sinks), self._threads)

    def rms_norm(
        self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0, residual: Tensor | None = None
    ) -> Tensor:
        """See `interface.Kernels`."""
        return self._norm(x, weight, None, eps, offset, residual, is_centred=0)

    def layer_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, *, residual: Tensor | None = None
    ) -> Tensor:
        """See `interface.Kernels`."""
        return self._norm(x, weight, bias, eps, 0.0, residual, is_centred=1)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See `interface.Kernels`."""
        return self._gated(self._functions[gate_up.dtype].silu_mul, gate_up)

    def gelu_tanh_mul(self, gate_up: Tensor) -> Tensor:
        """See `interface.Kernels`."""
        return self._gated(self._functions[gate_up.dtype].gelu_tanh_mul, gate_up)

    def _gated(self, function: Callable[..., None], gate_up: Tensor) -> Tensor:
        gate_up = _dense(gate_up, gate_up.dtype)
        rows, both = gate_up.shape
        output = gate_up.new_empty(rows, both // 2)
        function(output.data_ptr(), gate_up.data_ptr(), gate_up.stride(0), rows, both // 2, self._threads)
        return output

    def _norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        offset: float,
        residual: Tensor | None,
        *,
        is_centred: int,
    ) -> Tensor:
        x = _dense(x, x.dtype)
        is_wide = weight.dtype is torch.float32
        if not is_wide:
            weight = _dense(weight, x.dtype)
        if bias is not None:
            bias = _dense(bias, weight.dtype)
        rows, dim = x.shape
        output = x.new_empty(rows, dim)
        self._functions[x.dtype].norm(
            output.data_ptr(),
            x.data_ptr(),
            x.stride(0),
            _address(residual),
            0 if residual is None else residual.stride(0),
            weight.data_ptr(),
            _address(bias),
            is_wide,
            is_centred,
            rows,
            dim,
            eps,
            offset,
            self._threads,
        )
        return output


class NativeAttention:
    """See `interface.Attention`."""

    def __init__(self, functions: Functions, dtype: torch.dtype, layer: Layer, kept: object, threads: int) -> None:
        """`kept` is what the layer points to."""
        self._functions, self._dtype = functions, dtype
        self._layer, self._kept = layer, kept
        self._at = addressof(layer)
        self._heads, self._kv_heads = layer.heads, layer.kv_heads
        self._key_dim, self._value_dim = layer.key_dim, layer.value_dim
        self._threads = threads

    @property
    def address(self) -> int:
        """Where `struct layer` of layer.h is. Valid as long as this lives."""
        return self._at

    def write(self, keys: Tensor, values: Tensor, rows: Rows) -> None:
        """See `interface.Attention`."""
        keys, values = _dense(keys, self._dtype), _dense(values, self._dtype)
        self._functions.write(
            self._at,
            rows.address,
            keys.data_ptr(),
            keys.stride(0),
            keys.stride(1),
            values.data_ptr(),
            values.stride(0),
            values.stride(1),
            self._threads,
        )

    def write_qkv(
        self, qkv: Tensor, rows: Rows, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        """See `interface.Attention`."""
        turning = Turning()
        if cos is not None and sin is not None:
            turning.cos, turning.sin = cos.data_ptr(), sin.data_ptr()
            turning.step, turning.half = cos.stride(0), cos.shape[1]
        if norm is not None:
            turning.query_weight, turning.key_weight = norm.query.data_ptr(), norm.key.data_ptr()
            turning.is_float = norm.query.dtype is torch.float32
            turning.eps, turning.offset = norm.eps, norm.offset
        self._functions.write_qkv(
            self._at, rows.address, qkv.data_ptr(), qkv.stride(0), addressof(turning), self._threads
        )
        step = qkv.stride(0)
        return qkv.as_strided((qkv.shape[0], self._heads, self._key_dim), (step, self._key_dim, 1))

    def attend(self, query: Tensor, rows: Rows) -> Tensor:
        """See `interface.Attention`."""
        query = _dense(query, self._dtype)
        output = query.new_empty(query.shape[0], self._heads, self._value_dim)
        has_failed = self._functions.attend(
            self._at,
            rows.address,
            output.data_ptr(),
            query.data_ptr(),
            query.stride(0),
            query.stride(1),
            self._threads,
        )
        if has_failed:
            raise MemoryError("attention found no memory to work in")
        return output


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _dense(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.dtype is not dtype:
        tensor = tensor.to(dtype)
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
