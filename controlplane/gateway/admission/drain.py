"""How fast those that wait are let in, measured while some do. Pure."""

from __future__ import annotations

import math

HORIZON_S = 10.0  # what is older counts for little
ENOUGH_S = 0.5  # of waiting, before anything is said


class Drain:
    """A mean over the last seconds in which something waited: what engines did then is all that they can."""

    def __init__(self) -> None:
        self._cost = self._seconds = 0.0
        self._fresh = 0.0  # not yet among them
        self._since_s: float | None = None  # None: nothing waits

    def add(self, cost: float) -> None:
        """Notes that so much was done."""
        if self._since_s is not None:
            self._fresh += cost

    def tick(self, now_s: float, *, is_waiting: bool) -> None:
        """Takes in what time has passed; `is_waiting` tells whether something waits from now on."""
        if self._since_s is not None and now_s > self._since_s:
            passed_s = now_s - self._since_s
            faded = math.exp(-passed_s / HORIZON_S)
            # As if it had been done evenly; then a long time without a tick counts no more than the horizon.
            weight_s = HORIZON_S * (1 - faded)
            self._cost = self._cost * faded + self._fresh * weight_s / passed_s
            self._seconds = self._seconds * faded + weight_s
            self._fresh = 0.0
            self._since_s = now_s
        if not is_waiting:
            self._since_s, self._fresh = None, 0.0
        elif self._since_s is None:
            self._since_s = now_s

    def wait_s(self, cost: float) -> float | None:
        """Returns how long so much takes; None if nothing was measured yet."""
        if self._seconds < ENOUGH_S or self._cost <= 0:
            return None
        return cost * self._seconds / self._cost
