"""Placement against the brute-force checker: on drawn fleets, and on the seed's cases on one, two and many nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model import Node, Wanted
from controlplane.placement.ledger import Ledger
from controlplane.placement.place import Places
from tests.independent.brute_force import Scene, counts_of, is_feasible, judge, most_placeable, seed_counts, slot_of
from tests.independent.cases import PLACEABLE
from tests.independent.scenes import gpu, node, scene, scenes, wanted

STRATEGIES = ("idle_first", "spread", "binpack", "memory_first")


def _fill(case: Scene) -> Places:
    return Ledger(case.nodes, case.placements, owners=case.owners).fill(case.wanted, case.own)


@settings(max_examples=300)
@given(scenes(), st.sampled_from(STRATEGIES))
def test_what_is_placed_breaks_no_rule_and_all_is_placed_exactly_if_all_fits(case: Scene, strategy: str) -> None:
    case = replace(case, wanted=replace(case.wanted, strategy=strategy))
    places = _fill(case)
    assert judge(case, places.proposals) == []
    placed, unplaced = [each.index for each in places.proposals], [each.index for each in places.unplaced]
    assert sorted(placed + unplaced) == sorted(case.missing)
    assert (not unplaced) == is_feasible(case)
    if case.wanted.gpu_count is None:
        assert len(places.proposals) == most_placeable(case)


@pytest.mark.parametrize(("case", "count"), PLACEABLE.values(), ids=PLACEABLE)
def test_placement_agrees_on_the_cases_made_by_hand(case: Scene, count: int) -> None:
    places = _fill(case)
    assert judge(case, places.proposals) == []
    assert (not places.unplaced) == (count == len(case.missing))
    if case.wanted.gpu_count is None:
        assert len(places.proposals) == count


def _fleet(node_count: int, gpu_count: int, *, busy: Sequence[float] = (0.0,)) -> list[Node]:
    """Returns equal nodes whose GPUs are as utilized as `busy` says, over and over."""
    nodes: list[Node] = []
    for name in (f"n{index}" for index in range(node_count)):
        gpus = [gpu(name, index, total_gib=24) for index in range(gpu_count)]
        nodes.append(node(name, *(replace(each, utilization_fraction=busy[each.index % len(busy)]) for each in gpus)))
    return nodes


SEED = {
    "three on one GPU": (wanted(3), 1, 1, ([3], [3])),
    "three on a gpu_count of one, two nodes": (wanted(3, gpu_count=1), 2, 1, ([3], [3])),
    "three on a gpu_count of two, one node": (wanted(3, gpu_count=2), 1, 4, ([2, 1], [3])),
    "three on a gpu_count of two, two nodes": (wanted(3, gpu_count=2), 2, 8, ([2, 1], [2, 1])),
    "three on a gpu_count of two, many nodes": (wanted(3, gpu_count=2), 9, 8, ([2, 1], [2, 1])),
    "four gangs of two, one node": (wanted(4, gang=2), 1, 8, ([1] * 8, [4])),
    "four gangs of two, two nodes": (wanted(4, gang=2), 2, 8, ([1] * 8, [2, 2])),
    "four gangs of two, many nodes": (wanted(4, gang=2), 9, 8, ([1] * 8, [1, 1, 1, 1])),
    "sharing off, two nodes": (wanted(4, allows_sharing=False), 2, 8, ([1] * 4, [2, 2])),
}


@pytest.mark.parametrize("busy", [(0.0,), (0.04, 0.06, 0.05), (0.51, 0.49)], ids=["idle", "noise", "busy"])
@pytest.mark.parametrize(("chat", "nodes", "gpus", "counts"), SEED.values(), ids=SEED)
def test_the_counts_of_the_seed_come_out(
    chat: Wanted, nodes: int, gpus: int, counts: tuple[list[int], list[int]], busy: Sequence[float]
) -> None:
    case = scene(chat, _fleet(nodes, gpus, busy=busy))
    places = _fill(case)
    assert not places.unplaced
    assert counts_of(case, [slot_of(each) for each in places.proposals]) == counts


@settings(max_examples=40)
@given(
    node_count=st.integers(1, 3),
    gpu_count=st.integers(1, 3),
    replica_count=st.integers(1, 4),
    gang=st.integers(1, 2),
)
def test_on_equal_idle_gpus_the_counts_are_those_of_the_evenest_way(
    node_count: int, gpu_count: int, replica_count: int, gang: int
) -> None:
    case = scene(wanted(replica_count, gang=min(gang, gpu_count)), _fleet(node_count, gpu_count))
    assert counts_of(case, [slot_of(each) for each in _fill(case).proposals]) == seed_counts(case)


def test_with_sharing_off_a_second_on_one_gpu_is_refused_and_the_first_is_placed() -> None:
    case = scene(wanted(2, allows_sharing=False), _fleet(1, 1))
    places = _fill(case)
    assert judge(case, places.proposals) == []
    assert [each.index for each in places.proposals] == [0]
    assert [each.index for each in places.unplaced] == [1]
