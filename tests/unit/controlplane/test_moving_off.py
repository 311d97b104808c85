"""Replicas leave nodes that are lost or drained: none is doubled, none is lost, and draining costs no service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fleets import gpu, node
from tests.support.simulated_fleet import EVENTS, Cluster, SimulatedNode, fleets, play

Events = Sequence[tuple[Any, ...]]

OBEYING = st.lists(
    st.tuples(st.sampled_from(["receive", "take over", "stop", "serve", "obey", "round", "round"]), st.just("ab")),
    max_size=40,
)


def ample(names: str, *, total_gib: int = 4000) -> Cluster:
    return Cluster([SimulatedNode(node(name, [gpu(name, 0, total_gib=total_gib)]), frozenset()) for name in names])


@settings(max_examples=150, deadline=None)
@given(fleets(can_refuse=False), EVENTS, st.sampled_from(["", "a", "b", "ab"]))
def test_any_history_ends_with_one_engine_for_each_replica_or_with_the_reason_why_there_is_none(
    fleet: list[SimulatedNode], events: Events, absent: str
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    for name in absent:
        cluster.lose(name)
    cluster.come_to_rest(absent)
    serving = cluster.serving()
    told = {(each.deployment, each.index) for each in cluster.unplaced}
    told |= {(each.deployment, each.index) for each in cluster.placements if each.node in cluster.held}
    assert set(serving.values()) <= {1}
    assert cluster.running().total() == serving.total()
    for name, each in cluster.wanted.items():
        if not each.is_deleting:
            indexes = {index for of, index in {*serving, *told} if of == name}
            assert len(indexes) >= each.replica_count
            assert sum(of == name for of, _ in serving) <= each.replica_count
    for placed in cluster.placements:
        if cluster.nodes[placed.node].is_present and not placed.is_stopping:
            wish = cluster.wishes.get(placed.node)
            is_stuck = (placed.deployment, placed.index) in told
            assert wish is None or wish.drain is None or (is_stuck and not wish.drain.allows_unserved)


@settings(max_examples=100, deadline=None)
@given(fleets(can_refuse=False), EVENTS)
def test_once_all_nodes_are_back_every_replica_has_one_placement_and_each_is_served_by_the_newest(
    fleet: list[SimulatedNode], events: Events
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    cluster.come_to_rest()
    assert not any(each.is_stopping for each in cluster.placements)
    assert set(Counter((each.deployment_uid, each.index) for each in cluster.placements).values()) <= {1}
    assert cluster.serving() == Counter((each.deployment, each.index) for each in cluster.placements)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), OBEYING, st.booleans())
def test_a_drain_takes_no_replica_out_of_service_at_any_moment(
    replica_count: int, events: Events, by_force: bool
) -> None:
    cluster = ample("ab")
    cluster.want("chat", replica_count, None)
    cluster.come_to_rest()
    served = set(cluster.serving())
    assert len(served) == replica_count
    cluster.wish("force" if by_force else "drain", "a")
    for each in events:
        play(cluster, [each])
        assert set(cluster.serving()) == served
    cluster.come_to_rest()
    assert {each.node for each in cluster.placements} == {"b"}
    assert set(cluster.serving()) == served


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.lists(st.sampled_from(["go", "come", "round", "obey"]), max_size=12))
def test_with_one_node_alone_what_is_lost_is_as_before_when_it_is_back(replica_count: int, events: list[str]) -> None:
    cluster = ample("a")
    cluster.want("chat", replica_count, None)
    cluster.come_to_rest()
    before, engines = cluster.placements, cluster.nodes[cluster.placements[0].node].engines
    play(cluster, [(each,) if each == "round" else (each, "a") for each in events])
    cluster.come_to_rest()
    assert cluster.placements == before
    assert cluster.nodes[before[0].node].engines == engines


def test_what_is_drained_and_fits_nowhere_stays_until_there_is_room_or_it_is_forced() -> None:
    cluster = ample("ab", total_gib=4)
    cluster.want("chat", 2, None)
    cluster.come_to_rest()
    cluster.wish("drain", "a")
    cluster.come_to_rest()
    assert cluster.serving().total() == 2
    [stuck] = cluster.unplaced
    assert stuck.reason.startswith('node a is drained; elsewhere: replica "chat-')
    cluster.wish("force", "a")
    cluster.come_to_rest()
    assert [each.node for each in cluster.placements] == ["b"]
    cluster.wish("uncordon", "a")
    cluster.come_to_rest()
    assert sorted(each.node for each in cluster.placements) == ["a", "b"]
