"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow by a factor from the first to a cap, in seconds.

    `jitter` is the share of a delay that may be cut off at random.
    """

    first_s: float
    cap_s: float
    factor: float = 2.0
    jitter: float = 0.0

    def delay_s(self, attempt: int, random: float = 0.0) -> float:
        """Returns the delay before attempt `attempt`, from 0; `random` in [0, 1) chooses within the jitter."""
        whole = min(self.cap_s, self.first_s * self.factor ** min(attempt, 63))
        return whole * (1 - self.jitter * random)
