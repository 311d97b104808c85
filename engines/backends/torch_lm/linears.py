"""Linear layers whose weights are packed once, with what comes before and behind them in the same pass.

A row's result depends on no other row where `Linears.is_batch_invariant`.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Gate = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class Norm:
    """A root-mean-square norm of a row: row / rms(row) * weight."""

    weight: Tensor  # [inputs], float32
    eps: float


@dataclass(frozen=True, slots=True)
class Int8:
    """A weight in eight bits: numbers * scale."""

    numbers: Tensor  # [outputs, inputs], int8
    scale: Tensor  # [outputs], float32
    dtype: torch.dtype  # of what it is multiplied with


class Linear(Protocol):
    """y = f(norm(x) W' + b), made once."""

    def __call__(self, x: Tensor, *, of: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
        """Returns y, [rows, outputs]. x: [rows, inputs], the last dimension dense.

        of: which rows of x are meant, int64; all if None. onto: [rows, outputs], to which y is added in place.
        """


class Linears(Protocol):
    """A way to compute linear layers."""

    @property
    def name(self) -> str:
        """Which one it is, for the fingerprint."""

    def pack(
        self,
        weight: Tensor | Int8,
        bias: Tensor | None = None,
        *,
        norm: Norm | None = None,
        gate: Gate | None = None,
        is_wide: bool = False,
    ) -> Linear:
        """Returns a layer that needs neither `weight` nor `bias` any more. weight: [outputs, inputs].

        gate: the outputs are gates and, behind them, as many ups; y is gate's function of the one, times the other.
        is_wide: y is float32, whatever x is.
        """


class _Layout(ctypes.Structure):
    """`Linear` in linear.c."""

    _fields_ = [
        ("outputs", c_int64),
        ("inputs", c_int64),
        ("panels", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("norm", c_void_p),
        ("eps", c_float),
        ("dtype", c_int32),
        ("kind", c_int32),
        ("gate", c_int32),
        ("is_wide", c_int32),
    ]


_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
_GATES: dict[Gate | None, int] = {None: 0, "silu": 1, "gelu_tanh": 2}


class NativeLinears:
    """In C, on a CPU. See `Linears`."""

    def __init__(self, path: Path, name: str, threads: int) -> None:
        """Raises OSError if the library cannot be loaded here, AttributeError if it is of other sources."""
        self._library = library = ctypes.CDLL(str(path))
        how = "tiles" if library.linear_has_tiles() else "pairs"
        self.name = f"{name}, bfloat16 in {how}" if library.linear_has_pairs() else name
        self._threads = threads
        library.linear_bytes.argtypes, library.linear_bytes.restype = [c_void_p], c_int64
        library.linear_pack.argtypes, library.linear_pack.restype = [c_void_p, c_void_p, c_int], None
        library.linear.argtypes = [c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_int, c_int]
        library.linear.restype = c_int

    def pack(
        self,
        weight: Tensor | Int8,
        bias: Tensor | None = None,
        *,
        norm: Norm | None = None,
        gate: Gate | None = None,
        is_wide: bool = False,
    ) -> NativeLinear:
        """See `Linears`."""
        numbers = (weight.numbers if isinstance(weight, Int8) else weight).detach().contiguous()
        dtype = weight.dtype
        layout = _Layout(
            *numbers.shape, dtype=_DTYPES[dtype], kind=_DTYPES[numbers.dtype], gate=_GATES[gate], is_wide=is_wide
        )
        at = ctypes.addressof(layout)
        panels = torch.empty(self._library.linear_bytes(at), dtype=torch.uint8)
        layout.panels = panels.data_ptr()
        kept: list[Any] = [layout, panels]

        def address(vector: Tensor) -> int:
            kept.append(vector.detach().float().contiguous())
            pointer: int = kept[-1].data_ptr()
            return pointer

        if isinstance(weight, Int8):
            layout.scale = address(weight.scale)
        if bias is not None:
            layout.bias = address(bias)
        if norm is not None:
            layout.norm, layout.eps = address(norm.weight), norm.eps
        self._library.linear_pack(at, numbers.data_ptr(), self._threads)
        columns = numbers.shape[0] // (2 if gate else 1)
        return NativeLinear(self._library, at, columns, torch.float32 if is_wide else dtype, self._threads, kept)


class NativeLinear:
    """See `Linear`."""

    __slots__ = ("_dtype", "_function", "_kept", "address", "columns", "library", "threads")

    def __init__(
        self, library: ctypes.CDLL, address: int, columns: int, dtype: torch.dtype, threads: int, kept: list[Any]
    ) -> None:
        """address: of the structure. columns: of the result. kept: the structure, and what it points to."""
        self.library, self.address, self.columns, self.threads = library, address, columns, threads
        self._function, self._dtype, self._kept = library.linear, dtype, kept

    def __call__(self, x: Tensor, *, of: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
        """See `Linear`."""
        rows = x.shape[0] if of is None else of.shape[0]
        y = torch.empty(rows, self.columns, dtype=self._dtype) if onto is None else onto
        failed = self._function(
            self.address,
            x.data_ptr(),
            x.stride(0),
            None if of is None else of.data_ptr(),
            rows,
            y.data_ptr(),
            y.stride(0),
            onto is not None,
            self.threads,
        )
        if failed:
            raise MemoryError("a linear layer found no memory to work in")
        return y
