"""Messages that are encoded once and sent many times: what they stand in is put together of their bytes.

See https://protobuf.dev/programming-guides/encoding/ for tags and lengths.
"""

from __future__ import annotations

from collections.abc import Iterable

_LENGTH_DELIMITED = 2  # the wire type of messages


def holding(field_number: int, messages: Iterable[bytes]) -> bytes:
    """Returns the encoding of a message that has nothing but these in one field, which is repeated if they are many."""
    tag = _varint(field_number << 3 | _LENGTH_DELIMITED)
    return b"".join(part for each in messages for part in (tag, _varint(len(each)), each))


def _varint(value: int) -> bytes:
    """Returns a number in base 128, lowest digits first; every byte but the last has its highest bit set."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
