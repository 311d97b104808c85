"""Replicas are replaced by such as run something else: as many at a time as is allowed, and none is lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fleets import gpu, node
from tests.support.simulated_fleet import EVENTS, Cluster, SimulatedNode, fleets, play

Events = Sequence[tuple[Any, ...]]

OBEYING = st.lists(
    st.tuples(st.sampled_from(["receive", "take over", "stop", "serve", "obey", "round", "round"]), st.just("ab")),
    max_size=60,
)


def cluster_of(names: str, *, total_gib: int = 4000) -> Cluster:
    return Cluster([SimulatedNode(node(name, [gpu(name, 0, total_gib=total_gib)]), frozenset()) for name in names])


def standing(cluster: Cluster) -> Counter[int]:
    return Counter(each.index for each in cluster.placements if not each.is_stopping)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), OBEYING)
def test_where_there_is_room_a_rollout_takes_no_replica_out_of_service_at_any_moment(
    replica_count: int, max_surge: int, events: Events
) -> None:
    cluster = cluster_of("ab")
    cluster.want("chat", replica_count, None)
    cluster.come_to_rest()
    before = {each.replica_uid for each in cluster.placements}
    cluster.update("chat", max_surge)
    for each in events:
        play(cluster, [each])
        assert len(cluster.serving()) == replica_count
        assert standing(cluster).total() <= replica_count + max_surge
    cluster.come_to_rest()
    assert not before & {each.replica_uid for each in cluster.placements}
    assert standing(cluster) == Counter(range(replica_count))
    assert len(cluster.serving()) == replica_count
    assert not cluster.outdated()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), OBEYING)
def test_where_there_is_no_room_no_more_replicas_are_missing_than_may_be(
    replica_count: int, max_unavailable: int, max_surge: int, events: Events
) -> None:
    cluster = cluster_of("a", total_gib=3 * replica_count)  # each takes 3
    cluster.want("chat", replica_count, None)
    cluster.come_to_rest()
    cluster.update("chat", max_surge, max_unavailable)
    for each in events:
        play(cluster, [each])
        assert len(cluster.serving()) >= replica_count - max_unavailable
    cluster.come_to_rest()
    assert len(cluster.serving()) == replica_count
    assert not cluster.outdated()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5), st.integers(1, 2), OBEYING)
def test_a_rollout_goes_on_though_a_node_is_lost_in_the_middle_of_it(
    replica_count: int, max_surge: int, events: Events
) -> None:
    cluster = cluster_of("abc")
    cluster.want("chat", replica_count, None)
    cluster.come_to_rest()
    cluster.update("chat", max_surge)
    play(cluster, events)
    cluster.lose("a")
    cluster.come_to_rest("a")
    fresh = {each.index for each in cluster.placements if each.spec_generation and each.node != "a"}
    assert fresh == set(range(replica_count))
    assert len(cluster.serving()) == replica_count
    cluster.come_to_rest()
    assert not cluster.outdated()


def test_what_may_not_be_missing_and_has_no_room_beside_it_stays_and_says_so() -> None:
    cluster = cluster_of("a", total_gib=6)
    cluster.want("chat", 2, None)
    cluster.come_to_rest()
    before = cluster.placements
    cluster.update("chat")
    cluster.come_to_rest()
    assert cluster.placements == before
    [stuck] = cluster.unplaced
    assert stuck.reason.startswith('what is to replace it has no room beside generation 1; elsewhere: replica "chat-0"')


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 2), OBEYING, OBEYING)
def test_what_is_taken_back_leaves_alone_what_still_runs_it(
    replica_count: int, max_surge: int, events: Events, later: Events
) -> None:
    cluster = cluster_of("ab")
    cluster.want("chat", replica_count, None)
    cluster.come_to_rest()
    cluster.update("chat", max_surge)
    play(cluster, events)
    kept = {each.replica_uid for each in cluster.placements if not each.spec_generation and not each.is_stopping}
    cluster.take_back("chat")
    for each in later:
        play(cluster, [each])
        assert len(cluster.serving()) == replica_count
    cluster.come_to_rest()
    assert kept <= {each.replica_uid for each in cluster.placements}
    assert not cluster.outdated()
    assert len(cluster.serving()) == replica_count


def test_a_new_replica_that_dies_again_and_again_is_left_to_try_while_the_old_one_serves() -> None:
    cluster = cluster_of("a")
    cluster.want("chat", 1, None)
    cluster.come_to_rest()
    cluster.update("chat")
    cluster.round()
    play(cluster, [("obey", "a")])
    [simulated] = cluster.nodes.values()
    old, new = sorted(cluster.placements, key=lambda each: each.epoch)
    simulated.engines[new.replica_uid] = replace(simulated.engines[new.replica_uid], has_failed=True)
    assert not cluster.round()
    assert set(cluster.placements) == {old, new}


def test_replicas_that_do_not_serve_are_replaced_at_once() -> None:
    cluster = cluster_of("ab")
    cluster.want("chat", 4, None)
    cluster.round()
    play(cluster, [("obey", "ab")])  # none serves yet
    cluster.update("chat")
    cluster.round()
    assert standing(cluster) == Counter(range(4))
    assert not cluster.outdated()


@settings(max_examples=100, deadline=None)
@given(fleets(can_refuse=False), EVENTS)
def test_after_any_history_everything_runs_what_is_wanted_or_says_why_not(
    fleet: list[SimulatedNode], events: Events
) -> None:
    cluster = Cluster(fleet)
    play(cluster, events)
    cluster.come_to_rest()
    told = {(each.deployment, each.index) for each in cluster.unplaced}
    assert cluster.outdated() <= told


def test_of_more_replicas_than_are_wanted_the_idle_and_then_the_least_loaded_go() -> None:
    cluster = cluster_of("a")
    cluster.want("chat", 4, None)
    cluster.come_to_rest()
    [simulated] = cluster.nodes.values()
    loads = {0: 5, 1: 2, 2: 0, 3: 9}
    for each in cluster.placements:
        engine = simulated.engines[each.replica_uid]
        simulated.engines[each.replica_uid] = replace(engine, load=loads[each.index], is_serving=each.index != 3)
    cluster.want("chat", 3, None)
    cluster.round()
    assert sorted(standing(cluster)) == [0, 1, 2]  # the one that does not serve goes first, whatever it has to do
    cluster.want("chat", 2, None)
    cluster.round()
    assert sorted(standing(cluster)) == [0, 1]
    cluster.want("chat", 1, None)
    cluster.round()
    assert sorted(standing(cluster)) == [0]
    cluster.want("chat", 3, None)
    cluster.round()
    assert sorted(standing(cluster)) == [0, 1, 2]
