"""Off which nodes replicas are moved, and when rather off none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model import Attendance, Drain, Node, NodeId, NodeWish
from controlplane.placement.evictions import FORGET_S, FROZEN, Departures, departures
from tests.support.fleets import node

LEASE_S = 7.0
DRAIN = Drain(grace_s=3.0)


def looked(
    ready: str = "",
    lost: Mapping[str, float] | None = None,
    *,
    quiet: Mapping[str, float] | None = None,
    absent: str = "",
    wishes: Mapping[str, NodeWish] | None = None,
    running_s: float = 1000.0,
    watched_s: float = 1000.0,
) -> Departures:
    """lost: how long they have been silent; quiet: the same of nodes that are not lost yet; absent: not heard of."""
    lost, quiet = lost or {}, quiet or {}
    fleet: Sequence[Node] = [
        *(node(name) for name in (*ready, *quiet)),
        *(node(name, is_ready=False) for name in lost),
    ]
    silent_s = {NodeId(name): since_s for name, since_s in {**lost, **quiet}.items()}
    return departures(
        {each.id: each for each in fleet},
        Attendance(LEASE_S, silent_s, running_s, watched_s),
        {NodeId(name): each for name, each in (wishes or {}).items()},
        {*(each.id for each in fleet), *map(NodeId, absent)},
    )


@pytest.mark.parametrize(
    ("found", "leaving"),
    [
        pytest.param(looked("abc"), {}, id="all_report"),
        pytest.param(looked("bc", {"a": 8}), {"a"}, id="one_of_three"),
        pytest.param(looked("b", {"a": 8}), {"a"}, id="one_of_two"),
        pytest.param(looked("", {"a": 8}), {"a"}, id="the_only_one"),
        pytest.param(looked("c", {"a": 8, "b": 9}), set(), id="two_of_three_together"),
        pytest.param(looked("cdef", {"a": 8, "b": 9}), {"a", "b"}, id="two_of_six_are_no_more_than_a_third"),
        pytest.param(looked("cde", {"a": 8, "b": 9}), set(), id="two_of_five"),
        pytest.param(looked("c", {"a": 8, "b": 90}), {"a", "b"}, id="two_of_three_one_after_the_other"),
        pytest.param(looked("c", {"a": 8}, quiet={"b": 5}), set(), id="with_one_that_is_about_to_be_lost"),
        pytest.param(looked("defghi", {"a": 8, "b": 12, "c": 90}), {"a", "b", "c"}, id="a_window_of_a_lease"),
        pytest.param(looked("de", {"a": 8, "b": 14, "c": 90}), {"c"}, id="only_those_that_went_together_are_kept"),
        pytest.param(looked("b", absent="a"), {"a"}, id="one_that_was_not_heard_of_since_the_start"),
        pytest.param(looked("c", absent="ab"), set(), id="two_of_three_that_were_not_heard_of"),
    ],
)
def test_replicas_leave_lost_nodes_unless_too_many_vanished_together(found: Departures, leaving: set[str]) -> None:
    assert found.leaving == dict.fromkeys(leaving)


def test_within_a_lease_of_a_start_or_a_stall_nothing_leaves_a_silent_node() -> None:
    found = looked("bc", {"a": 8}, absent="d", watched_s=LEASE_S - 0.1)
    assert found.leaving == {}
    assert {node: each.reason for node, each in found.held.items()} == {"a": "JustStarted", "d": "JustStarted"}
    assert set(looked("bcef", {"a": 8}, absent="d", watched_s=LEASE_S).leaving) == {"a", "d"}


def test_a_freeze_says_how_it_ends() -> None:
    found = looked("c", {"a": 8, "b": 9})
    assert found.held.keys() == {"a", "b"}
    held = found.held[NodeId("a")]
    assert held.reason == FROZEN
    assert held.message == (
        "2 of 3 nodes fell silent within one lease (7 s), which is rather the network: nothing is moved until enough "
        "of them are back; drain those that will not be"
    )


def test_draining_a_lost_node_ends_the_freeze_for_it_and_no_longer_counts_it() -> None:
    found = looked("cd", {"a": 8, "b": 9}, wishes={"a": NodeWish(DRAIN)})
    assert (found.leaving, found.held) == ({"a": DRAIN, "b": None}, {})


def test_a_drained_node_is_left_whether_it_reports_or_not_and_at_any_time() -> None:
    found = looked("ab", {"c": 8}, wishes={"a": NodeWish(DRAIN), "c": NodeWish(DRAIN)}, watched_s=0.0)
    assert found.leaving == {"a": DRAIN, "c": DRAIN}


def test_a_cordoned_node_takes_nothing_and_keeps_what_it_has() -> None:
    found = looked("ab", wishes={"a": NodeWish(), "z": NodeWish()})
    assert {name: each.is_cordoned for name, each in found.nodes.items()} == {"a": True, "b": False}
    assert found.leaving == {}


def test_a_node_that_was_not_heard_of_for_a_day_is_not_waited_for() -> None:
    assert looked("b", absent="a", running_s=FORGET_S - 1).forgotten == frozenset()
    assert looked("b", absent="a", running_s=FORGET_S + 1).forgotten == {"a"}


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(7.1, 60)), st.integers(0, 8))
def test_those_that_are_kept_are_just_those_with_too_many_others_within_a_lease(
    silent_s: dict[str, float], ready_count: int
) -> None:
    found = looked("".join("stuvwxyz"[:ready_count]), silent_s)
    count = len(silent_s) + ready_count
    windows = [
        {name for name, since_s in silent_s.items() if 0 <= since_s - first_s <= LEASE_S}
        for first_s in silent_s.values()
    ]
    frozen = {name for window in windows if len(window) >= 2 and 3 * len(window) > count for name in window}
    assert found.held.keys() == frozen
    assert found.leaving.keys() == silent_s.keys() - frozen
