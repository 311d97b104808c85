"""How long to rest after work that comes back again and again, so that it never fills the time. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Keeps work to `most_fraction` of the time, however much there is; no rest is longer than `cap_s` seconds."""

    most_fraction: float
    cap_s: float = 0.5

    def rest_s(self, worked_s: float) -> float:
        """Returns how long to rest after `worked_s` seconds of work."""
        return min(self.cap_s, worked_s * (1 / self.most_fraction - 1))
