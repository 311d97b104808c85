"""Strategies that other packages bring."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from controlplane.extensions import STRATEGIES_GROUP, strategies
from controlplane.placement.strategies import STRATEGIES, memory_first
from roundhouse.kit.errors import Usage

MODULE = "controlplane.placement.strategies"


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, STRATEGIES_GROUP)


def test_a_strategy_of_another_package_stands_beside_those_that_are_built_in() -> None:
    known = strategies(STRATEGIES, [point("by_taste", f"{MODULE}:memory_first")])
    assert list(known) == [*STRATEGIES, "by_taste"]
    assert known["by_taste"] is memory_first


@pytest.mark.parametrize(
    ("points", "said"),
    [
        pytest.param(
            [point("idlefirst", f"{MODULE}:spread")], "has a name that is taken: rename it", id="name_of_a_built_in_one"
        ),
        pytest.param(
            [point("taste", f"{MODULE}:spread"), point("taste", f"{MODULE}:binpack")],
            "has a name that is taken: rename it, or uninstall one of them",
            id="name_twice",
        ),
        pytest.param([point("By Taste", f"{MODULE}:spread")], "is no name: use 1 to 63 characters", id="malformed"),
        pytest.param([point("taste", f"{MODULE}:DEFAULT_STRATEGY")], "is a str: make it a function", id="no_function"),
        pytest.param([point("taste", "no_such_module:f")], "cannot be loaded, ModuleNotFoundError", id="no_module"),
        pytest.param([point("taste", f"{MODULE}:nothing")], "cannot be loaded, AttributeError", id="no_attribute"),
    ],
)
def test_one_that_cannot_be_used_is_refused_by_name(points: list[EntryPoint], said: str) -> None:
    with pytest.raises(Usage, match=said) as refusal:
        strategies(STRATEGIES, points)
    assert f'the strategy "{points[-1].name}" of the entry point {points[-1].value}' in str(refusal.value)


def test_those_of_the_packages_that_are_installed_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "taste-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: taste\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{STRATEGIES_GROUP}]\nby_taste = {MODULE}:spread\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert strategies(STRATEGIES)["by_taste"] is STRATEGIES["spread"]
