"""Bars of characters for shares of one, as they look without colours too. Pure."""

from __future__ import annotations

from rich.text import Text

WIDTH = 12  # characters
_EMPTY = ("░", "dim")


def share_bar(fraction: float, width: int = WIDTH) -> Text:
    """Returns a bar for a share of one: green, from a half on yellow, from nine tenths on red."""
    style = "red" if fraction >= 0.9 else "yellow" if fraction >= 0.5 else "green"
    return stacked_bar([(fraction, "█", style)], width)


def progress_bar(fraction: float, width: int = WIDTH) -> Text:
    """Returns a bar for how much of something is done: the fuller the better."""
    return stacked_bar([(fraction, "█", "cyan")], width)


def memory_bar(ours_bytes: int, others_bytes: int, total_bytes: int, width: int = WIDTH) -> Text:
    """Returns a bar of memory: `█` what replicas have reserved, `▓` what others use, `░` what is free."""
    total = max(1, total_bytes)
    return stacked_bar([(ours_bytes / total, "█", "green"), (others_bytes / total, "▓", "yellow")], width)


def stacked_bar(parts: list[tuple[float, str, str]], width: int) -> Text:
    """Returns a bar of parts (share, character, style), rounded so that they fill it together as their sum does.

    A part that is there at all is seen, as long as there is room.
    """
    bar, filled, share = Text(), 0, 0.0
    for fraction, character, style in parts:
        share = min(1.0, share + max(0.0, fraction))
        until = min(width, max(round(share * width), filled + (fraction > 0)))
        bar.append(character * (until - filled), style)
        filled = until
    bar.append(_EMPTY[0] * (width - filled), _EMPTY[1])
    return bar
