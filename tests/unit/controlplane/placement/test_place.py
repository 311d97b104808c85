"""Where replicas go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import pytest

from controlplane.model import Need, Node, Placement, Wanted
from controlplane.placement.fit import MAX_NODE_REPLICAS
from controlplane.placement.place import Places
from tests.support.fleets import GIB, Case, engine, gpu, node, place, placement, wanted, where


def put(wanted: Wanted, nodes: Sequence[Node], placements: Sequence[Placement] = ()) -> Places:
    standing = {each.index for each in placements if each.deployment_uid == wanted.uid and not each.is_stopping}
    missing = [index for index in range(wanted.replica_count) if index not in standing]
    return place(wanted, missing, placements=placements, nodes=nodes)


SOLO = wanted("solo", allows_sharing=False)
LOADED = placement("chat-0", "a-0", gib=10)
SEED = [
    Case("three_replicas_share_the_one_gpu", wanted(replica_count=3), [node("a")], ["a-0", "a-0", "a-0"]),
    Case(
        "three_replicas_with_a_gpu_count_of_two_are_two_and_one",
        wanted(replica_count=3, gpu_count=2),
        [node("a", 2)],
        ["a-0", "a-1", "a-0"],
    ),
    Case("idle_gpus_take_turns", wanted(replica_count=3), [node("a", 2)], ["a-0", "a-1", "a-0"]),
    Case(
        "without_sharing_each_gpu_takes_one",
        wanted(replica_count=3, allows_sharing=False),
        [node("a", 2)],
        ["a-0", "a-1"],
    ),
]
RANK = [
    Case(
        "the_least_utilized_comes_first",
        wanted(),
        [node("a", [gpu("a", 0, busy=0.9), gpu("a", 1, busy=0.1), gpu("a", 2, busy=0.5)])],
        ["a-1"],
    ),
    Case(
        "a_difference_within_five_points_counts_for_nothing",
        wanted(),
        [node("a", [gpu("a", 0, busy=0.149), gpu("a", 1, busy=0.101)])],
        ["a-0"],
    ),
    Case(
        "a_replica_that_is_not_reported_yet_counts_as_load",
        wanted(replica_count=2),
        [node("a", [gpu("a", 0), gpu("a", 1, busy=0.15)])],
        ["a-0", "a-1"],
    ),
    Case(
        "much_load_outweighs_a_replica_that_is_not_reported_yet",
        wanted(replica_count=2),
        [node("a", [gpu("a", 0), gpu("a", 1, busy=0.5)])],
        ["a-0", "a-0"],
    ),
    Case(
        "of_equally_utilized_the_least_reserved_comes_first",
        wanted("other"),
        [node("a", 2, engines=[engine(LOADED, measured_gib=2)])],
        ["a-1"],
        [LOADED],
    ),
    Case(
        "of_equally_reserved_the_one_with_fewer_replicas_comes_first",
        wanted("other"),
        [
            node(
                "a",
                2,
                engines=[
                    engine(placement("x-0", "a-0", gib=2)),
                    engine(placement("x-1", "a-0", gib=2)),
                    engine(placement("x-2", "a-1", gib=4)),
                ],
            )
        ],
        ["a-1"],
        [placement("x-0", "a-0", gib=2), placement("x-1", "a-0", gib=2), placement("x-2", "a-1", gib=4)],
    ),
    Case(
        "of_equal_gpus_the_one_on_the_emptier_node_comes_first",
        wanted(replica_count=4),
        [node("a", 2), node("b", 2)],
        ["a-0", "b-0", "a-1", "b-1"],
    ),
    Case("of_equals_the_first_by_name_and_index_comes_first", wanted(), [node("b", 2), node("a", 2)], ["a-0"]),
]
FIT = [
    Case("an_exact_fit_is_a_fit", wanted(need_gib=24), [node("a")], ["a-0"]),
    Case("what_is_a_byte_too_large_does_not_fit", wanted(need_gib=24.000001), [node("a")], []),
    Case(
        "foreign_memory_is_not_available",
        wanted(need_gib=20),
        [node("a", [gpu("a", 0, used_gib=5), gpu("a", 1, used_gib=3)])],
        ["a-1"],
    ),
    Case(
        "an_engine_that_has_loaded_is_not_counted_twice",
        wanted("other", need_gib=14),
        [node("a", [gpu("a", 0, used_gib=10)], engines=[engine(LOADED, measured_gib=10)])],
        ["a-0"],
        [LOADED],
    ),
    Case(
        "an_engine_that_takes_more_than_it_reserved_counts_with_what_it_takes",
        wanted("other", need_gib=14),
        [node("a", [gpu("a", 0, used_gib=11)], engines=[engine(LOADED, measured_gib=11)])],
        [],
        [LOADED],
    ),
    Case(
        "an_engine_that_nobody_placed_keeps_its_memory",
        wanted(need_gib=15),
        [node("a", engines=[engine(placement("x-0", "a-0", gib=10))])],
        [],
    ),
    Case(
        "an_engine_that_is_gone_does_not",
        wanted(need_gib=15),
        [node("a", engines=[engine(placement("x-0", "a-0", gib=10), is_gone=True)])],
        ["a-0"],
    ),
    Case(
        "a_replica_that_is_stopping_keeps_its_memory",
        wanted("other", need_gib=15),
        [node("a")],
        [],
        [placement("chat-0", "a-0", gib=10, is_stopping=True)],
    ),
    Case("a_node_that_does_not_report_takes_nothing", wanted(), [node("a", is_ready=False), node("b")], ["b-0"]),
    Case(
        "a_gpu_that_has_failed_takes_nothing",
        wanted(),
        [node("a", [gpu("a", 0, is_healthy=False), gpu("a", 1)])],
        ["a-1"],
    ),
    Case(
        "a_gpu_with_replicas_takes_none_that_shares_with_nobody",
        wanted("solo", 2, allows_sharing=False),
        [node("a", 2)],
        ["a-1"],
        [placement("chat-0", "a-0", gib=1)],
    ),
]
ON_HOST = wanted(replica_count=3, gpus_per_replica=0)
OLD = wanted(replica_count=2, gpus_per_replica=None)
HOSTS = [
    Case("on_the_processors_hosts_take_turns", ON_HOST, [node("a", 0), node("b", 0)], ["a", "b", "a"]),
    Case("the_host_of_a_gpu_is_one_of_them", ON_HOST, [node("a", 0), node("b", 2)], ["a", "b", "a"]),
    Case("a_host_takes_nothing_that_needs_a_gpu", wanted(replica_count=2), [node("a", 0), node("b")], ["b-0"] * 2),
    Case("not_even_what_no_gpu_can_hold", wanted(need_gib=30), [node("a", 0), node("b")], []),
    Case(
        "nor_when_every_gpu_has_failed",
        wanted(),
        [node("a", 0), node("b", [gpu("b", 0, is_healthy=False)])],
        [],
    ),
    Case(
        "on_the_processors_no_gpu_is_looked_at",
        ON_HOST,
        [node("a", 0), node("b", [gpu("b", 0, is_healthy=False)])],
        ["a", "b", "a"],
    ),
    Case("a_host_has_its_memory_and_no_more", replace(ON_HOST, need=Need(30 * GIB)), [node("a", 0)], ["a", "a"]),
    Case(
        "hosts_are_shared_whatever_is_said_of_gpus",
        replace(ON_HOST, allows_sharing=False),
        [node("a", 0), node("b", 0)],
        ["a", "b", "a"],
    ),
    Case(
        "what_runs_on_a_host_holds_its_memory",
        replace(ON_HOST, need=Need(30 * GIB)),
        [node("a", 0)],
        ["a"],
        [placement("x-0", "a", gib=5)],
    ),
    Case("what_was_stored_without_a_number_goes_to_hosts_without_gpus", OLD, [node("a", 0), node("b", 0)], ["a", "b"]),
    Case("and_to_gpus_where_there_are_any", OLD, [node("a", 0), node("b")], ["b-0", "b-0"]),
    Case(
        "and_to_hosts_while_the_only_gpus_do_not_report",
        OLD,
        [node("a", 0), node("b", is_ready=False)],
        ["a", "a"],
    ),
    Case(
        "unless_it_was_sized_for_gpus",
        replace(OLD, is_for_gpus=True),
        [node("a", 0), node("b", is_ready=False)],
        [],
    ),
    Case(
        "whatever_it_stands_on",
        replace(OLD, replica_count=3),
        [node("a", 0), node("b", is_ready=False)],
        ["a"],
        [placement("chat-0", "b-0"), placement("chat-1", "a")],
    ),
]
# All but one of the replicas that a node can be told of, some on a GPU that it has no more.
NEARLY_FULL = [placement(f"x-{index}", f"a-{index % 3}", gib=0.001) for index in range(MAX_NODE_REPLICAS - 1)]
NODE_FULL = [
    Case(
        "the_last_that_a_node_can_be_told_of_comes_to_it",
        wanted(replica_count=3, need_gib=1),
        [node("a", 2)],
        ["a-0"],
        NEARLY_FULL,
    ),
    Case(
        "all_others_go_to_other_nodes",
        wanted(replica_count=3, need_gib=1),
        [node("a", 2), node("b", [gpu("b", 0, busy=0.9)])],
        ["b-0", "b-0", "b-0"],
        [*NEARLY_FULL, placement("x-999", "a-0", gib=0.001, is_stopping=True)],
    ),
    Case(
        "a_gpu_count_cannot_use_two_gpus_of_a_node_for_one_replica",
        wanted(replica_count=2, need_gib=1, gpu_count=2),
        [node("a", 2)],
        ["a-0"],
        NEARLY_FULL,
    ),
    Case(
        "a_node_is_told_of_a_thousand",
        wanted(replica_count=1001, need_gib=0.001),
        [node("a")],
        ["a-0"] * 1000,
    ),
]
GPU_COUNT = [
    Case(
        "a_gpu_count_of_one_packs",
        wanted(replica_count=3, gpu_count=1),
        [node("a", 4)],
        ["a-0"] * 3,
    ),
    Case(
        "the_set_is_one_on_which_everything_fits",
        wanted(replica_count=4, gpu_count=2),
        [node("a", [gpu("a", 0, used_gib=18), gpu("a", 1, busy=0.5), gpu("a", 2, busy=0.9)])],
        ["a-1", "a-2", "a-1", "a-2"],
    ),
    Case(
        "counts_differ_more_only_where_memory_forces_them_to",
        wanted(replica_count=4, gpu_count=2),
        [node("a", [gpu("a", 0, used_gib=18), gpu("a", 1)])],
        ["a-1", "a-0", "a-1", "a-1"],
    ),
    Case(
        "of_the_even_sets_the_idlest_is_taken",
        wanted(replica_count=2, gpu_count=2),
        [node("a", [gpu("a", 0, busy=0.9), gpu("a", 1, busy=0.2), gpu("a", 2, busy=0.1)])],
        ["a-2", "a-1"],
    ),
    Case(
        "the_set_spreads_over_nodes",
        wanted(replica_count=2, gpu_count=2),
        [node("a", 2), node("b", 2)],
        ["a-0", "b-0"],
    ),
    Case(
        "replicas_that_stand_belong_to_the_set",
        wanted(replica_count=4, gpu_count=2),
        [node("a", 3)],
        ["a-0", "a-0"],
        [placement("chat-0", "a-2"), placement("chat-1", "a-2")],
    ),
    Case(
        "replicas_that_stop_do_not",
        wanted(replica_count=2, gpu_count=1),
        [node("a", 2)],
        ["a-1", "a-1"],
        [placement("chat-0", "a-0", is_stopping=True)],
    ),
    Case(
        "the_set_stays_when_one_of_it_does_not_report",
        wanted(replica_count=3, gpu_count=2),
        [node("a"), node("b"), node("c", is_ready=False)],
        ["a-0"],
        [placement("chat-0", "c-0"), placement("chat-1", "c-0")],
    ),
    Case(
        "fewer_gpus_than_asked_for_take_their_share_only",
        wanted(replica_count=5, gpu_count=3),
        [node("a", 2)],
        ["a-0", "a-1", "a-0", "a-1"],
    ),
    Case(
        "one_replica_waits_for_each_gpu_that_is_missing",
        wanted(replica_count=5, gpu_count=4),
        [node("a", 3)],
        ["a-0", "a-1", "a-2", "a-0"],
    ),
    Case(
        "fewer_replicas_than_gpus_asked_for_take_one_each",
        wanted(replica_count=2, gpu_count=3),
        [node("a", 3)],
        ["a-0", "a-1"],
    ),
    Case(
        "on_the_processors_hosts_count_as_gpus",
        replace(ON_HOST, gpu_count=2),
        [node("a", 0), node("b", 0), node("c", 0)],
        ["a", "b", "a"],
    ),
]


@pytest.mark.parametrize("case", [*SEED, *RANK, *FIT, *HOSTS, *NODE_FULL, *GPU_COUNT], ids=attrgetter("name"))
def test_replicas_go(case: Case) -> None:
    places = put(case.wanted, case.nodes, case.placements)
    assert where(places.proposals) == case.want
    missing = case.wanted.replica_count - sum(
        each.deployment_uid == case.wanted.uid and not each.is_stopping for each in case.placements
    )
    assert len(places.proposals) + len(places.unplaced) == missing
    assert all(each.reserved_bytes == case.wanted.need.total_bytes for each in places.proposals)


def test_a_replica_of_one_that_shares_with_nobody_keeps_all_others_off() -> None:
    alone = [placement("solo-0", "a-0", gib=1)]
    places = place(wanted(replica_count=2), [0, 1], placements=alone, nodes=[node("a", 2)], others=[SOLO])
    assert where(places.proposals) == ["a-1", "a-1"]


def test_a_place_that_is_to_be_avoided_is() -> None:
    avoid = {(node("a").id, gpu("a", 0).uuid)}
    places = place(wanted(), [0], placements=[], nodes=[node("a", 2)], avoid=avoid)
    assert where(places.proposals) == ["a-1"]


def test_a_replica_that_is_placed_anew_does_not_hold_on_to_its_old_gpu() -> None:
    standing = [placement("chat-0", "a-0"), placement("chat-1", "a-1")]
    avoid = {(node("a").id, gpu("a", 0).uuid)}
    places = place(wanted(replica_count=2, gpu_count=2), [0], placements=standing, nodes=[node("a", 3)], avoid=avoid)
    assert where(places.proposals) == ["a-2"]


def test_an_unknown_strategy_places_nothing_and_says_which_are_known() -> None:
    places = put(wanted(strategy="by_taste"), [node("a")])
    assert places.proposals == ()
    known = "idle_first, spread, binpack, memory_first"
    assert places.unplaced[0].reason == f'the strategy "by_taste" is unknown: use one of {known}'
