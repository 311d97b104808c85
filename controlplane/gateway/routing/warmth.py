"""How large a share of requests a replica gets that has just become ready. Pure."""

from __future__ import annotations

WARM_UP_S = 10.0  # libraries, caches and processors find their pace; and nobody else's mistake shows at once everywhere
LEAST_SHARE = 0.1


def share(age_s: float) -> float:
    """Returns the share, as against a replica that is warm, in [0.1, 1]."""
    return min(1.0, max(LEAST_SHARE, age_s / WARM_UP_S))
