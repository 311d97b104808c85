"""Counts what transformers reads of the files of weights, while it reads them."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

from transformers import modeling_utils

from engines.loading import Count

_BITS = re.compile(r"\d+")  # of a number format of safetensors: `BF16`, `F8_E4M3`, `I64`; `BOOL` is a byte


@contextlib.contextmanager
def counted(count: Count) -> Iterator[None]:
    """Counts for the block. Nothing with a version of transformers that opens files in another way.

    It has no door for that: its bars count tensors, which differ in size by a thousand times.
    """
    library: Any = modeling_utils
    opens = getattr(library, "safe_open", None)
    if opens is None:
        yield
        return
    library.safe_open = lambda *arguments, **options: _File(opens(*arguments, **options), count)
    try:
        yield
    finally:
        library.safe_open = opens


class _File:
    """A file of safetensors, as the library knows it."""

    def __init__(self, file: Any, count: Count) -> None:
        self._file, self._count = file, count

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_slice(self, name: str) -> _Slice:
        """Returns a tensor that is read when it is indexed."""
        return _Slice(self._file.get_slice(name), self._count)


class _Slice:
    def __init__(self, tensor: Any, count: Count) -> None:
        self._tensor, self._count = tensor, count
        bits = _BITS.search(tensor.get_dtype())
        count.expect(math.prod(tensor.get_shape()) * (int(bits[0]) if bits else 8) // 8)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)

    def __getitem__(self, index: Any) -> Any:
        read = self._tensor[index]
        self._count.add(read.nbytes)
        return read
