"""Whatever happens to a fleet, planning again and again brings it to rest, and never gives out more than there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model import Placement
from tests.support.fleets import GIB, gpu, node
from tests.support.simulated_fleet import EVENTS, Cluster, SimulatedNode, fleets, play


@settings(max_examples=150, deadline=None)
@given(fleets(can_refuse=False), EVENTS)
def test_any_history_ends_with_just_what_is_wanted(
    fleet: list[SimulatedNode], events: Sequence[tuple[Any, ...]]
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    cluster.wishes.clear()
    cluster.come_to_rest()
    running = cluster.running()
    standing = {(each.deployment, each.index) for each in cluster.placements}
    told = {(each.deployment, each.index) for each in cluster.unplaced}
    waiting = Counter(deployment for deployment, _ in told - standing)
    assert cluster.outdated() <= told
    assert not any(each.is_deleting for each in cluster.wanted.values())
    assert not any(each.is_stopping for each in cluster.placements)
    expected = {name: each.replica_count for name, each in cluster.wanted.items() if each.replica_count}
    assert running + waiting == expected


def runs(cluster: Cluster, placement: Placement) -> bool:
    return placement.replica_uid in cluster.nodes[placement.node].engines


@settings(max_examples=100, deadline=None)
@given(fleets(can_refuse=True), EVENTS)
def test_a_fleet_that_refuses_comes_to_rest_with_what_it_takes(
    fleet: list[SimulatedNode], events: Sequence[tuple[Any, ...]]
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    cluster.wishes.clear()
    cluster.come_to_rest()
    running = cluster.running()
    told = {(each.deployment, each.index) for each in cluster.unplaced}
    assert cluster.outdated() <= told
    # What is refused, or cannot be replaced, stands and is told of; it may run what was wanted before.
    told -= {(each.deployment, each.index) for each in cluster.placements if runs(cluster, each)}
    for name, each in cluster.wanted.items():
        waiting = sum(deployment == name for deployment, _ in told)
        assert running[name] + waiting == each.replica_count


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.none() | st.integers(1, 2), EVENTS)
def test_where_there_is_room_everything_that_is_wanted_runs(
    replica_count: int, gpu_count: int | None, events: Sequence[tuple[Any, ...]]
) -> None:
    ample = [gpu("a", index, total_gib=4000) for index in range(2)]
    cluster = Cluster([SimulatedNode(node("a", ample), frozenset())])
    play(cluster, [event for event in events if event[0] != "want" or event[1] == "chat"])
    cluster.wishes.clear()
    cluster.delete("chat")
    cluster.come_to_rest()
    cluster.want("chat", replica_count, min(gpu_count, replica_count) if gpu_count else None)
    cluster.come_to_rest()
    assert cluster.running() == {"chat": replica_count}
    assert GIB * 3 * replica_count == sum(each.reserved_bytes for each in cluster.placements)
