"""How the work of the kernels is cut: pure functions of shapes, so that a captured graph holds for every step."""

from __future__ import annotations

LEAST_PART = 64  # keys that a program of its own is worth
QUERY_TILE = 32  # tokens of one sequence that one program of the prefill has
LARGEST_DIM = 256  # of a head; beyond it registers and shared memory are too small for these tiles

_MOST_PARTS = 32  # the programs that put parts together hold all of them in registers
_PROGRAMS_PER_MULTIPROCESSOR = 4
# Keys and values of a tile. For what comes from these, test_compiled.py sees to it that registers and shared memory are
# enough for several programs on each multiprocessor. float32 is not for tensor cores: all of it is in registers.
_TILE_BYTES, _TILE_BYTES_FLOAT32 = 32 << 10, 16 << 10
_LEAST_DIM = 16  # what a tensor core multiplies at least
FUSED = {"enable_fp_fusion": True}  # a product and a sum are rounded once; Triton 3.10 would want to be asked


def padded(count: int, least: int = _LEAST_DIM) -> int:
    """Returns the next power of two: kernels have no other sizes."""
    return max(least, 1 << (count - 1).bit_length())


def key_tile(key_dim: int, value_dim: int, itemsize: int) -> int:
    """Returns how many keys a program takes at a time, a power of two."""
    tile_bytes = _TILE_BYTES_FLOAT32 if itemsize == 4 else _TILE_BYTES
    fitting = tile_bytes // ((padded(key_dim) + padded(value_dim)) * itemsize)
    return min(64, max(16, _power_below(fitting)))


def part_count(rows: int, kv_heads: int, context: int, multiprocessors: int) -> int:
    """Returns in how many parts the keys of each sequence are read, a power of two.

    context: the most keys that one may ever see. Enough parts to keep all multiprocessors busy, if they are not so
    short that putting them together costs more than it brings.
    """
    wanted = -(-_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors // (rows * kv_heads))
    most = max(1, min(wanted, -(-context // LEAST_PART), _MOST_PARTS))
    return _power_below(most)


def heads_together(group: int, dim: int, itemsize: int) -> int:
    """Returns how many heads of a group one program of the prefill has, a power of two: they share what it reads."""
    if itemsize == 4:
        return 1
    return min(padded(group, 1), 4 if padded(dim) <= 128 else 2)


def _power_below(count: int) -> int:
    return 1 << (count.bit_length() - 1)
