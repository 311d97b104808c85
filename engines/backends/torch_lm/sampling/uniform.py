"""Random numbers that any engine can draw again."""

from __future__ import annotations

import hashlib
import struct


def uniform(seed: int, choice: int, position: int) -> float:
    """Returns a number in [0, 1) that is a function of its arguments alone, on every machine."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, choice, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53
