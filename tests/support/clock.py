"""Time that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A clock whose two times move together."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        """Returns seconds since 1970."""
        return self._now_s

    def monotonic(self) -> float:
        """Returns seconds since some start."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Moves on."""
        self._now_s += seconds
