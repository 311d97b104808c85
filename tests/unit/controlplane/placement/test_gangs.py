"""Replicas that have several GPUs, all on one node or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from random import Random

import pytest

from controlplane.model import Node, Wanted
from tests.support.fleets import Case, gpu, node, place, placement, wanted, where


def pair(replica_count: int = 1, **others: object) -> Wanted:
    """Returns a deployment of which each replica has two GPUs."""
    return wanted(replica_count=replica_count, gpus_per_replica=2, **others)  # type: ignore[arg-type]


JOINED = [gpu("a", at, island=at % 2) for at in range(4)]
CASES = [
    Case(
        "four_of_two_spread_over_two_nodes_of_eight",
        pair(4),
        [node("a", 8), node("b", 8)],
        ["a-0+a-1", "b-0+b-1", "a-2+a-3", "b-2+b-3"],
    ),
    Case("all_or_nothing", pair(2), [node("a", 3), node("b", 1)], ["a-0+a-1", "a-0+a-2"]),
    Case("never_on_two_nodes", pair(), [node("a"), node("b")], []),
    Case(
        "the_least_utilized_go_together",
        pair(),
        [node("a", [gpu("a", at, busy=busy) for at, busy in enumerate((0.9, 0.1, 0.5, 0.1))])],
        ["a-1+a-3"],
    ),
    Case("nvlink_goes_before_the_index", pair(2), [node("a", JOINED)], ["a-0+a-2", "a-1+a-3"]),
    Case(
        "and_before_an_idler_node",
        pair(),
        [node("a", 2), node("b", [gpu("b", at, busy=0.5, island=7) for at in range(2)])],
        ["b-0+b-1"],
    ),
    Case(
        "without_room_on_an_island_any_do",
        pair(),
        [node("a", [gpu("a", 0, island=0), gpu("a", 1, island=1), gpu("a", 2, island=1, used_gib=24)])],
        ["a-0+a-1"],
    ),
    Case(
        "the_best_are_taken_while_there_is_enough_for_all",
        pair(need_gib=12),
        [node("a", [gpu("a", 0, busy=0.5), gpu("a", 1, total_gib=12), gpu("a", 2, total_gib=12)])],
        ["a-1+a-2"],
    ),
    Case(
        "but_not_if_another_could_not_be_placed_then",
        pair(2, need_gib=12),
        [node("a", [gpu("a", 0, busy=0.5), gpu("a", 1, total_gib=12), gpu("a", 2, total_gib=12)])],
        ["a-0+a-1", "a-0+a-2"],
    ),
    Case(
        "one_that_shares_with_nobody_has_all_its_gpus_alone",
        pair(3, allows_sharing=False),
        [node("a", 5)],
        ["a-0+a-1"],
        [placement("x-0", "a-4"), placement("chat-0", "a-2+a-3")],
    ),
    Case(
        "a_gpu_count_is_of_gpus",
        pair(3, gpu_count=4),
        [node("a", 8)],
        ["a-0+a-1", "a-2+a-3", "a-0+a-1"],
    ),
    Case(
        "of_sets_that_stand_none_is_broken_up",
        pair(3, gpu_count=4),
        [node("a", 4)],
        ["a-0+a-2", "a-0+a-2"],
        [placement("chat-0", "a-1+a-3")],
    ),
    Case(
        "sets_of_a_gpu_count_keep_to_nvlink",
        pair(2, gpu_count=4),
        [node("a", JOINED)],
        ["a-0+a-2", "a-1+a-3"],
    ),
    Case(
        "a_failed_gpu_is_in_none",
        pair(2),
        [node("a", [gpu("a", 0, is_healthy=False), gpu("a", 1), gpu("a", 2)])],
        ["a-1+a-2"] * 2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=attrgetter("name"))
def test_replicas_of_several_gpus_go(case: Case) -> None:
    standing = {each.index for each in case.placements if each.deployment == case.wanted.deployment}
    indexes = [index for index in range(case.wanted.replica_count) if index not in standing]
    places = place(case.wanted, indexes, placements=case.placements, nodes=case.nodes)
    assert where(places.proposals) == case.want
    assert len(places.unplaced) == len(indexes) - len(case.want)


def test_a_place_that_is_to_be_avoided_bars_every_set_that_holds_it() -> None:
    avoid = {(node("a").id, gpu("a", 1).uuid)}
    places = place(pair(2, need_gib=20), [0, 1], placements=[], nodes=[node("a", 4)], avoid=avoid)
    assert where(places.proposals) == ["a-0+a-2"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("base", [0.0, 0.03, 0.5, 0.97])
def test_noise_of_two_points_changes_none_of_the_counts(base: float, seed: int) -> None:
    random = Random(seed)

    def noisy(name: str, count: int) -> Node:
        return node(name, [gpu(name, at, busy=max(0.0, base + random.uniform(-0.02, 0.02))) for at in range(count)])

    def counts(wanted: Wanted, nodes: Sequence[Node]) -> list[int]:
        places = place(wanted, range(wanted.replica_count), placements=[], nodes=nodes)
        return sorted(Counter(where(places.proposals)).values())

    assert counts(wanted(replica_count=3), [noisy("a", 1)]) == [3]
    assert counts(wanted(replica_count=3), [noisy("a", 2)]) == [1, 2]
    assert counts(wanted(replica_count=3, gpu_count=2), [noisy("a", 4), noisy("b", 4)]) == [1, 2]
    assert counts(wanted(replica_count=8), [noisy("a", 2), noisy("b", 2)]) == [2, 2, 2, 2]
    four = place(pair(4), range(4), placements=[], nodes=[noisy("a", 8), noisy("b", 8)])
    assert Counter(each.node for each in four.proposals) == {"a": 2, "b": 2}
    assert len({each for proposal in four.proposals for each in proposal.gpus}) == 8
    refused = place(wanted(replica_count=3, allows_sharing=False), range(3), placements=[], nodes=[noisy("a", 2)])
    assert [each.index for each in refused.unplaced] == [2]
    taken = [gpu("a", 0, used_gib=12, busy=base), gpu("a", 1, busy=base + 0.02)]
    assert where(place(wanted(), [0], placements=[], nodes=[node("a", taken)]).proposals) == ["a-1"]
