"""Time as a collaborator, so that a test can hold it still."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Returns seconds since 1970; may jump. For people and the wire."""

    def monotonic(self) -> float:
        """Returns seconds that never go back. For durations and deadlines."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Returns seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds since some start."""
        return time.monotonic()
