"""The hash chain over token ids, see `Finished.token_hash`: two outputs with equal chains have equal ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY = bytes(32)


def chain(previous: bytes, ids: Iterable[int]) -> bytes:
    """Returns the chain over `ids` behind `previous`: for each id SHA-256(previous, id as 4 bytes, little-endian)."""
    for each in ids:
        previous = hashlib.sha256(previous + each.to_bytes(4, "little")).digest()
    return previous
