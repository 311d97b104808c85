"""Headers of safetensors files, which say all about the weights but their values."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

# [0, 8)      n, little-endian
# [8, 8 + n)  the header, JSON: name -> dtype, shape, data_offsets; offsets count from its end
# [8 + n, …)  the values
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # what the library itself refuses to read
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class Broken(Exception):
    """A file of a model is missing or damaged; the message names it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a tensor."""

    name: str
    dtype: str  # as torch calls it
    shape: tuple[int, ...]
    byte_count: int

    @property
    def parameter_count(self) -> int:
        """Returns how many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Weights:
    """All tensors of a model taken together."""

    byte_count: int = 0
    parameter_count: int = 0
    bytes_by_dtype: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Weights:
        """Returns the sum of tensors."""
        parameter_count, bytes_by_dtype = 0, Counter[str]()
        for each in tensors:
            parameter_count += each.parameter_count
            bytes_by_dtype[each.dtype] += each.byte_count
        return cls(bytes_by_dtype.total(), parameter_count, dict(bytes_by_dtype))

    @property
    def dtype(self) -> str:
        """Returns the format that most of the weights are in; empty if there are none."""
        return max(self.bytes_by_dtype, key=lambda each: self.bytes_by_dtype[each], default="")


def read_header(path: Path, expected: frozenset[str] = frozenset()) -> list[Tensor]:
    """Returns what a file holds; raises Broken if it is missing, cut short or damaged, or lacks one of `expected`."""
    header, data_bytes = _header(path)
    tensors = {name: each for name, each in header.items() if name != "__metadata__"}
    missing = sorted(expected - tensors.keys())
    if missing:
        raise Broken(f"{path.name}: it lacks {len(missing)} tensors that the index promises, {missing[0]} among them")
    found = []
    end = 0
    for name, tensor in tensors.items():
        try:
            dtype, shape, (first, behind) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
            one = Tensor(name, _DTYPES.get(dtype, str(dtype).lower()), tuple(map(index, shape)), behind - first)
        except (KeyError, TypeError, ValueError) as error:
            raise Broken(f"{path.name}: the header does not describe the tensor {name}") from error
        if not 0 <= first <= behind:
            raise Broken(f"{path.name}: the tensor {name} has impossible offsets")
        end = max(end, behind)
        found.append(one)
    if end != data_bytes:
        raise Broken(f"{path.name}: it is cut short or damaged: it has {data_bytes} bytes of weights, not {end}")
    return found


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    try:
        with path.open("rb") as file:
            prefix = file.read(_LENGTH.size)
            if len(prefix) < _LENGTH.size:
                raise Broken(f"{path.name}: it is cut short: it has {len(prefix)} bytes")
            length: int = _LENGTH.unpack(prefix)[0]
            size = path.stat().st_size
            if length > min(_LONGEST_HEADER, size - _LENGTH.size):
                raise Broken(f"{path.name}: it is cut short, or no safetensors file: its header has {length} bytes")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise Broken(f"{path.name} is missing") from None
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Broken(f"{path.name}: its header is no JSON: {error}") from error
    if not isinstance(header, dict) or not all(isinstance(each, dict) for each in header.values()):
        raise Broken(f"{path.name}: its header is no table of tensors")
    return header, size - _LENGTH.size - length
