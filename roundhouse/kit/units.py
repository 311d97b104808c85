"""Numbers as people read them. Pure."""

from __future__ import annotations


def format_bytes(count: int) -> str:
    """Returns a count of bytes as people read it, for example `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
