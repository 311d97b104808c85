"""Names of strategies."""

from __future__ import annotations

import pytest

from controlplane.placement.strategies import DEFAULT_STRATEGY, STRATEGIES, canonical_strategy


@pytest.mark.parametrize(
    "name", ["idle_first", "IDLE_FIRST", "idle-first", "idlefirst", "IDLE_FIRST_LAUNCH_STRATEGY"], ids=str
)
def test_every_spelling_that_xinference_takes_is_understood(name: str) -> None:
    assert canonical_strategy(name) == "idle_first"


@pytest.mark.parametrize("name", ["", "idle", "first_idle", "launch_strategy"])
def test_another_name_is_unknown(name: str) -> None:
    assert canonical_strategy(name) is None


def test_the_default_is_known() -> None:
    assert DEFAULT_STRATEGY in STRATEGIES
