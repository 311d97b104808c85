"""What the C library's allocator is told, so that memory which loading a model frees goes back to the system.

glibc keeps freed pieces below a threshold, which it raises to the size of the largest piece that was ever freed, to at
most 32 MiB. Layers that are converted, packed or quantized one after the other would stay in the process for good. With
a low threshold they are mapped, and unmapped when they are freed. Steps take and free the same tensors over and over;
for them the threshold is as high as glibc would have raised it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_* of malloc.h
_LOADING = {_MMAP_THRESHOLD: 512 * KIB, _TRIM_THRESHOLD: 512 * KIB}
_SERVING = {_MMAP_THRESHOLD: 32 * MIB, _TRIM_THRESHOLD: 64 * MIB}


@contextlib.contextmanager
def frugal_heap() -> Iterator[None]:
    """Lets freed memory go back at once during the block, and what is left of it after that; nothing without glibc."""
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    _tell(library, _LOADING)
    try:
        yield
    finally:
        library.malloc_trim(0)
        _tell(library, _SERVING)


def _tell(library: ctypes.CDLL, settings: dict[int, int]) -> None:
    for name, value in settings.items():
        library.mallopt(name, value)
