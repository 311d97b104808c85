"""The checker itself, on cases made by hand: what it takes for feasible, what it counts, and what it finds wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from controlplane.model import Node, NodeGpus, NodeId, Wanted
from tests.independent.brute_force import Scene, is_feasible, judge, most_placeable, seed_counts
from tests.independent.cases import (
    A2,
    AB,
    ALONE,
    APART_GPUS,
    APART_NODES,
    BROKEN,
    CHAT,
    CODE,
    FROM_GOLD,
    ON_A0,
    PLACEABLE,
    SHY,
    SILENT,
    TAINTED,
)
from tests.independent.scenes import (
    TIER,
    ZONE,
    Put,
    gpu,
    node,
    placement,
    put,
    scene,
    uuids,
    wanted,
)


@pytest.mark.parametrize(("case", "count"), PLACEABLE.values(), ids=PLACEABLE)
def test_the_most_that_can_be_placed_is_counted(case: Scene, count: int) -> None:
    assert most_placeable(case) == count
    assert is_feasible(case) == (count == len(case.missing))


IDLE = [node(name, *(gpu(name, index, total_gib=24) for index in range(4))) for name in "ab"]

# The seed's cases, as counts of replicas by GPU and by node.
SEED = {
    "three on one GPU": (wanted(3), [node("a", gpu("a", 0, total_gib=24))], ([3], [3])),
    "three on a gpu_count of two": (wanted(3, gpu_count=2), IDLE[:1], ([2, 1], [3])),
    "three on a gpu_count of two, two nodes": (wanted(3, gpu_count=2), IDLE, ([2, 1], [2, 1])),
    # Eight GPUs are enough for each to have one, so these eight say what sixteen would.
    "four gangs of two over two nodes": (wanted(4, gang=2), IDLE, ([1] * 8, [2, 2])),
    "sharing off": (wanted(4, allows_sharing=False), IDLE, ([1] * 4, [2, 2])),
}


@pytest.mark.parametrize(("chat", "nodes", "counts"), SEED.values(), ids=SEED)
def test_the_counts_of_the_seed_come_out(
    chat: Wanted, nodes: Sequence[Node], counts: tuple[list[int], list[int]]
) -> None:
    assert seed_counts(scene(chat, nodes)) == counts


def test_sharing_off_leaves_no_place_for_a_second_on_one_gpu() -> None:
    case = scene(wanted(2, allows_sharing=False), [node("a", gpu("a", 0, total_gib=24))])
    assert not is_feasible(case)
    assert most_placeable(case) == 1


GOOD = {
    "two on two GPUs": (scene(wanted(2), [A2]), [put(0, "a", 0), put(1, "a", 1)]),
    "two on one GPU": (scene(wanted(2), [A2]), [put(0, "a", 0), put(1, "a", 0)]),
    "only some": (scene(wanted(2), [A2]), [put(1, "a", 0)]),
    "a gang, in any order": (scene(wanted(1, gang=2), [A2]), [put(0, "a", 1, 0)]),
    "on a host": (scene(wanted(1, gang=0), [node("a", host_gib=8)]), [put(0, "a")]),
    "two and one": (scene(wanted(3, gpu_count=2), AB), [put(0, "a", 0), put(1, "b", 0), put(2, "a", 0)]),
    "uneven, as memory wants it": (
        scene(wanted(4, gpu_count=2), [node("a", gpu("a", 0, total_gib=4), gpu("a", 1, total_gib=12))]),
        [put(0, "a", 0), put(1, "a", 1), put(2, "a", 1), put(3, "a", 1)],
    ),
    "fewer GPUs than the gpu_count, and not all placed": (scene(wanted(2, gpu_count=2), AB), [put(0, "a", 0)]),
    "the third beside two that stand": (
        scene(CHAT, AB, [placement(CHAT, 0, "a", 0), placement(CHAT, 2, "b", 0)]),
        [put(1, "b", 0)],
    ),
}


@pytest.mark.parametrize(("case", "proposals"), GOOD.values(), ids=GOOD)
def test_the_judge_finds_nothing_wrong_with_what_follows_the_rules(case: Scene, proposals: Sequence[Put]) -> None:
    assert judge(case, proposals) == []


BAD = {
    "twice the same replica": (scene(wanted(2), [A2]), [put(0, "a", 0), put(0, "a", 1)], "index"),
    "a replica that is not wanted": (scene(wanted(2), [A2]), [put(2, "a", 0)], "index"),
    "a replica that has a place": (scene(CHAT, [A2], [placement(CHAT, 0, "a", 0)]), [put(0, "a", 1)], "index"),
    "another deployment": (scene(wanted(1), [A2]), [put(0, "a", 0, deployment="code")], "deployment"),
    "less reserved than needed": (scene(wanted(1), [A2]), [put(0, "a", 0, reserved_gib=3)], "reserved"),
    "a node that is not there": (scene(wanted(1), [A2]), [put(0, "c", 0)], "node"),
    "a GPU that is not there": (scene(wanted(1), [A2]), [put(0, "a", 2)], "gang"),
    "a GPU of another node": (scene(wanted(1), AB), [Put(0, NodeId("a"), uuids("b", 0))], "gang"),
    "a node that is not ready": (scene(wanted(1), [SILENT]), [put(0, "a", 0)], "ready"),
    "a GPU that is not healthy": (scene(wanted(1), [BROKEN]), [put(0, "a", 0)], "healthy"),
    "half a gang": (scene(wanted(1, gang=2), [A2]), [put(0, "a", 0)], "gang"),
    "a gang with one GPU twice": (scene(wanted(1, gang=2), [A2]), [put(0, "a", 0, 0)], "gang"),
    "a gang over two nodes": (
        scene(wanted(1, gang=2), AB),
        [Put(0, NodeId("a"), uuids("a", 0) + uuids("b", 0))],
        "gang",
    ),
    "a GPU for what belongs on a host": (scene(wanted(1, gang=0), [A2]), [put(0, "a", 0)], "gang"),
    "a host for what belongs on a GPU": (scene(wanted(1), [node("a", host_gib=8)]), [put(0, "a")], "gang"),
    "three where memory is for two": (scene(wanted(3), [A2]), [put(index, "a", 0) for index in range(3)], "memory"),
    "where others use memory": (scene(wanted(1), [node("a", gpu("a", 0, used_gib=5))]), [put(0, "a", 0)], "memory"),
    "a gang of which one GPU is full": (
        scene(wanted(1, gang=2), [node("a", gpu("a", 0), gpu("a", 1, used_gib=5))]),
        [put(0, "a", 0, 1)],
        "memory",
    ),
    "too much for a host": (scene(wanted(1, gang=0), [node("a", host_gib=3)]), [put(0, "a")], "memory"),
    "two on one GPU, sharing off": (
        scene(wanted(2, allows_sharing=False), [A2]),
        [put(0, "a", 0), put(1, "a", 0)],
        "sharing",
    ),
    "beside one that is alone": (
        scene(wanted(1), [A2], [placement(ALONE, 0, "a", 0)], [ALONE]),
        [put(0, "a", 0)],
        "sharing",
    ),
    "alone beside another": (
        scene(wanted(1, allows_sharing=False), [A2], [ON_A0], [CODE]),
        [put(0, "a", 0)],
        "sharing",
    ),
    "more GPUs than the gpu_count": (
        scene(wanted(2, gpu_count=1), [A2]),
        [put(0, "a", 0), put(1, "a", 1)],
        "gpu_count",
    ),
    "more hosts than the gpu_count": (
        scene(wanted(2, gang=0, gpu_count=1), [node("a", host_gib=8), node("b", host_gib=8)]),
        [put(0, "a"), put(1, "b")],
        "gpu_count",
    ),
    "gangs that overlap, with a gpu_count": (
        scene(wanted(2, gang=2, gpu_count=4), [node("a", *(gpu("a", index) for index in range(4)))]),
        [put(0, "a", 0, 1), put(1, "a", 1, 2)],
        "overlap",
    ),
    "fewer GPUs than the gpu_count": (
        scene(wanted(2, gpu_count=2), [A2]),
        [put(0, "a", 0), put(1, "a", 0)],
        "gpu_count",
    ),
    "three and one": (
        scene(wanted(4, gpu_count=2), IDLE[:1]),
        [put(0, "a", 0), put(1, "a", 1), put(2, "a", 1), put(3, "a", 1)],
        "even",
    ),
    "a GPU that is not allowed": (
        scene(wanted(1, allowed_gpus=[NodeGpus(None, frozenset([1]))]), [A2]),
        [put(0, "a", 0)],
        "allowed",
    ),
    "a host that is not allowed": (
        scene(wanted(1, gang=0, allowed_gpus=[NodeGpus(NodeId("b"))]), [node("a", host_gib=8)]),
        [put(0, "a")],
        "allowed",
    ),
    "a node without the label": (scene(wanted(1, node_labels=[ZONE]), [A2]), [put(0, "a", 0)], "labels"),
    "a node with a taint": (scene(wanted(1), [TAINTED]), [put(0, "a", 0)], "taint"),
    "its own on one node": (
        scene(wanted(2, anti_affinity=[APART_NODES]), [A2]),
        [put(0, "a", 0), put(1, "a", 1)],
        "apart",
    ),
    "its own on one GPU": (
        scene(wanted(2, anti_affinity=[APART_GPUS]), [A2]),
        [put(0, "a", 0), put(1, "a", 0)],
        "apart",
    ),
    "on the node of one it is to be apart from": (
        scene(wanted(1, anti_affinity=[FROM_GOLD]), [A2], [ON_A0], [CODE]),
        [put(0, "a", 1)],
        "apart",
    ),
    "on the node of one that is to be apart from it": (
        scene(wanted(1, labels=[TIER]), [A2], [placement(SHY, 0, "a", 0)], [SHY]),
        [put(0, "a", 1)],
        "apart",
    ),
}


@pytest.mark.parametrize(("case", "proposals", "rule"), BAD.values(), ids=BAD)
def test_the_judge_names_the_rule_that_is_broken(case: Scene, proposals: Sequence[Put], rule: str) -> None:
    assert {fault.partition(":")[0] for fault in judge(case, proposals)} == {rule}
