"""Names of strategies, and how each of them ranks."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import pytest

from controlplane.model import Unplaced
from controlplane.placement.strategies import DEFAULT_STRATEGY, STRATEGIES, Candidate, canonical_strategy
from tests.support.fleets import Case, engine, gpu, node, place, placement, wanted, where


@pytest.mark.parametrize(
    "name", ["idle_first", "IDLE_FIRST", "idle-first", "idlefirst", "IDLE_FIRST_LAUNCH_STRATEGY"], ids=str
)
def test_every_spelling_that_xinference_takes_is_understood(name: str) -> None:
    assert canonical_strategy(name) == "idle_first"


@pytest.mark.parametrize("name", ["", "idle", "first_idle", "launch_strategy"])
def test_another_name_is_unknown(name: str) -> None:
    assert canonical_strategy(name) is None


def test_a_name_that_an_extension_brings_is_known_where_it_is_said_to_be() -> None:
    assert canonical_strategy("by-taste", ["idle_first", "by_taste"]) == "by_taste"
    assert canonical_strategy("by-taste") is None


def test_the_default_is_known() -> None:
    assert DEFAULT_STRATEGY in STRATEGIES


X = placement("x-0", "a-0", gib=6)
TWO_NODES = [node("a", 2), node("b", 2)]
CASES = [
    Case(
        "idle_first_takes_the_least_utilized_whatever_its_memory",
        wanted(),
        [node("a", [gpu("a", 0, busy=0.3), gpu("a", 1, busy=0.1, used_gib=15)])],
        ["a-1"],
    ),
    Case(
        "idle_first_keeps_off_memory_that_others_use",
        wanted(),
        [node("a", [gpu("a", 0, used_gib=15), gpu("a", 1)])],
        ["a-1"],
    ),
    Case(
        "spread_counts_replicas_of_the_deployment_before_anything_else",
        wanted(replica_count=4, strategy="spread"),
        [node("a", 2), node("b", [gpu("b", 0, busy=0.9), gpu("b", 1, busy=0.8)])],
        ["a-0", "b-1", "a-1", "b-0"],
    ),
    Case(
        "spread_counts_those_that_stand",
        wanted(replica_count=2, strategy="spread"),
        TWO_NODES,
        ["b-0"],
        [placement("chat-0", "a-0")],
    ),
    Case("binpack_fills_a_gpu_first", wanted(replica_count=5, strategy="binpack"), TWO_NODES, ["a-0"] * 4 + ["a-1"]),
    Case(
        "binpack_begins_where_least_is_left",
        wanted(strategy="binpack"),
        [node("a", 2), node("b", [gpu("b", 0, used_gib=10), gpu("b", 1, used_gib=20)])],
        ["b-0"],
    ),
    Case(
        "memory_first_takes_the_most_memory_whatever_the_utilization",
        wanted(strategy="memory_first"),
        [node("a", [gpu("a", 0), gpu("a", 1, total_gib=80, used_gib=50, busy=0.9)])],
        ["a-1"],
    ),
    Case(
        "memory_first_counts_what_is_reserved",
        wanted(replica_count=2, strategy="memory_first"),
        [node("a", 2, engines=[engine(X)])],
        ["a-1", "a-1"],
        [X],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=attrgetter("name"))
def test_a_strategy_ranks(case: Case) -> None:
    standing = sum(each.deployment == case.wanted.deployment for each in case.placements)
    indexes = range(standing, case.wanted.replica_count)
    places = place(case.wanted, indexes, placements=case.placements, nodes=case.nodes)
    assert where(places.proposals) == case.want


def placed_by(strategy: object) -> tuple[list[str], Sequence[Unplaced]]:
    """Returns where one replica goes, and what is said if it does not."""
    strategies = {"taste": strategy}
    fleet = [node("a", [gpu("a", 0, used_gib=4), gpu("a", 1, busy=0.2)])]
    places = place(wanted(strategy="taste"), [0], placements=[], nodes=fleet, strategies=strategies)  # type: ignore[arg-type]
    return where(places.proposals), places.unplaced


def test_a_strategy_of_an_extension_decides_by_what_it_may_see() -> None:
    seen: list[Candidate] = []

    def taste(candidate: Candidate) -> list[tuple[str, float]]:
        seen.append(candidate)
        return [("held", candidate.available_bytes)]

    assert placed_by(taste) == (["a-0"], ())
    assert [(each.node, each.gpu, each.index, each.utilization_band) for each in seen[:2]] == [
        ("a", "a-0", 0, 0),
        ("a", "a-1", 1, 4),
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(lambda _: [("taste", float("nan"))], "[nan], which are no finite numbers", id="nan"),
        pytest.param(lambda _: [("taste", "good")], "TypeError", id="text"),
        pytest.param(lambda _: None, "TypeError", id="nothing"),
        pytest.param(lambda _: 1 / 0, "ZeroDivisionError: division by zero", id="raises"),
    ],
)
def test_a_strategy_that_fails_is_named_with_what_it_did_and_the_cure(answer: object, said: str) -> None:
    where_to, (unplaced,) = placed_by(answer)
    assert where_to == []
    assert unplaced.reason.startswith('the strategy "taste" failed, ')
    assert said in unplaced.reason
    assert unplaced.reason.endswith(": mend it, or create the deployment with another")
