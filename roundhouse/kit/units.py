"""Numbers as people read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def format_bytes(count: int) -> str:
    """Returns a count of bytes as people read it, for example `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_sum(total: int, parts: Mapping[str, int]) -> str:
    """Returns a count of bytes and what it is made of, for example `3 GiB (2 GiB weights + 1 GiB cache)`."""
    said = " + ".join(f"{format_bytes(count)} {name}" for name, count in parts.items())
    return f"{format_bytes(total)} ({said})" if parts else format_bytes(total)
