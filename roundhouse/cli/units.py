"""Numbers as people read them. Pure."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """Returns a duration with two or three digits that matter, for example `41 ms`, `2.5 s`, `3 m 05 s`, `2 d 4 h`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0095 else f"{seconds * 1000:.1f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def format_age(seconds: float) -> str:
    """Returns how long something has gone on, in whole seconds: nobody reads a counter of milliseconds."""
    return format_seconds(seconds) if seconds >= 9.95 else f"{max(0.0, seconds):.0f} s"


def format_share(fraction: float) -> str:
    """Returns a share of one in percent."""
    return f"{fraction * 100:.0f} %"


def count_of(count: int, noun: str) -> str:
    """Returns `1 token`, `2 tokens`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
