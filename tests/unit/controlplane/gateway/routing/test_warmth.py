"""How much a replica gets that has just become ready."""

from __future__ import annotations

import pytest

from controlplane.gateway.routing.warmth import share


@pytest.mark.parametrize(("age_s", "want"), [(-5, 0.1), (0, 0.1), (1, 0.1), (5, 0.5), (10, 1), (float("inf"), 1)])
def test_its_share_rises_over_ten_seconds(age_s: float, want: float) -> None:
    assert share(age_s) == want
