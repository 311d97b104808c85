"""How many requests may be tried again, so that retries never make a bad time worse. Pure."""

from __future__ import annotations

from dataclasses import dataclass

RETRY_FRACTION = 0.2  # of requests
FLOOR_PER_S = 1.0  # so that the only request of a quiet minute is tried again too
MOST = 20.0  # that are saved up


@dataclass(frozen=True, slots=True)
class Budget:
    """A bucket of retries. Over any time, at most MOST + 20 % of the requests + one a second."""

    level: float = MOST
    at_s: float = float("-inf")  # when the level was so

    def with_request(self) -> Budget:
        """Returns what is left after one more request."""
        return Budget(min(MOST, self.level + RETRY_FRACTION), self.at_s)

    def with_retry(self, now_s: float) -> Budget | None:
        """Returns what is left after one more retry; None if that may not be."""
        level = min(MOST, self.level + FLOOR_PER_S * max(0.0, now_s - self.at_s))
        return Budget(level - 1, now_s) if level >= 1 else None
