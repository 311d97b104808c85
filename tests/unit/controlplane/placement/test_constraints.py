"""What a deployment says of where its replicas may be, and what is said of a node or a GPU that this rules out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import pytest

from controlplane.model import AntiAffinity, GpuUuid, Node, NodeGpus, NodeId, Taint, Toleration, Wanted
from tests.support.fleets import Case, gpu, node, place, placement, wanted, where

A, B = NodeId("a"), NodeId("b")
SELF, SELF_ON_GPU = AntiAffinity(frozenset()), AntiAffinity(frozenset(), on_gpu=True)
FROM_BATCH = AntiAffinity(frozenset({("kind", "batch")}))
FROM_BATCH_ON_GPU = replace(FROM_BATCH, on_gpu=True)
BATCH = wanted("batch", labels={"kind": "batch", "team": "x"})
SHY = wanted("shy", anti_affinity=[AntiAffinity(frozenset({("app", "chat")}))])
TAINTED = node("a", taints=[Taint("batch", "night")])


TWO = [node("a", 2), node("b", 2)]
CASES = [
    Case("allowed_indexes", wanted(allowed_gpus=[NodeGpus(B, frozenset({1}))]), TWO, ["b-1"]),
    Case("allowed_uuids", wanted(allowed_gpus=[NodeGpus(B, uuids=frozenset({GpuUuid("b-1")}))]), TWO, ["b-1"]),
    Case(
        "a_uuid_of_another_node_means_nothing",
        wanted(allowed_gpus=[NodeGpus(A, uuids=frozenset({GpuUuid("b-1")}))]),
        TWO,
        [],
    ),
    Case("all_gpus_of_a_node", wanted(replica_count=2, allowed_gpus=[NodeGpus(B)]), TWO, ["b-0", "b-1"]),
    Case(
        "an_index_on_every_node",
        wanted(replica_count=2, allowed_gpus=[NodeGpus(None, frozenset({1}))]),
        TWO,
        ["a-1", "b-1"],
    ),
    Case(
        "hosts_of_the_nodes_that_are_meant",
        wanted(gpus_per_replica=0, allowed_gpus=[NodeGpus(B, frozenset({1}))]),
        TWO,
        ["b"],
    ),
    Case(
        "labels",
        wanted(node_labels={"zone": "x", "disk": "fast"}),
        [node("a", labels={"zone": "x"}), node("b", labels={"zone": "x", "disk": "fast", "more": "y"})],
        ["b-0"],
    ),
    Case("a_taint_keeps_off", wanted(), [TAINTED, node("b", [gpu("b", 0, busy=0.9)])], ["b-0"]),
    Case("a_taint_that_is_tolerated_does_not", wanted(tolerations=[Toleration("batch")]), [TAINTED], ["a-0"]),
    Case("nor_one_of_this_value", wanted(tolerations=[Toleration("batch", "night")]), [TAINTED], ["a-0"]),
    Case("another_value_does_not_help", wanted(tolerations=[Toleration("batch", "")]), [TAINTED], []),
    Case("a_star_tolerates_any", wanted(tolerations=[Toleration("*")]), [TAINTED], ["a-0"]),
    Case(
        "every_taint_has_to_be_tolerated",
        wanted(tolerations=[Toleration("batch")]),
        [node("a", taints=[Taint("batch"), Taint("gone")])],
        [],
    ),
    Case("one_on_each_node", wanted(replica_count=3, anti_affinity=[SELF]), TWO, ["a-0", "b-0"]),
    Case("one_on_each_gpu", wanted(replica_count=3, anti_affinity=[SELF_ON_GPU]), [node("a", 2)], ["a-0", "a-1"]),
    Case(
        "one_on_each_node_with_a_gpu_count",
        wanted(replica_count=2, gpu_count=2, anti_affinity=[SELF]),
        TWO,
        ["a-0", "b-0"],
    ),
    Case(
        "apart_from_what_stands",
        wanted(replica_count=2, anti_affinity=[SELF]),
        TWO,
        ["b-0"],
        [placement("chat-0", "a-1")],
    ),
    Case(
        "apart_from_the_labels_of_another",
        wanted(anti_affinity=[FROM_BATCH]),
        [node("a", 2), node("b", [gpu("b", 0, busy=0.9)])],
        ["b-0"],
        [placement("batch-0", "a-1")],
        [BATCH],
    ),
    Case(
        "apart_from_it_on_gpus_only",
        wanted(replica_count=2, anti_affinity=[FROM_BATCH_ON_GPU]),
        [node("a", 2)],
        ["a-0", "a-0"],
        [placement("batch-0", "a-1")],
        [BATCH],
    ),
    Case(
        "apart_from_what_is_on_the_host_of_the_node",
        wanted(anti_affinity=[FROM_BATCH]),
        [node("a", 2)],
        [],
        [placement("batch-0", "a")],
        [BATCH],
    ),
    Case(
        "the_other_side_may_be_the_one_that_says_so",
        wanted(labels={"app": "chat"}),
        TWO,
        ["b-0"],
        [placement("shy-0", "a-0")],
        [SHY],
    ),
    Case(
        "labels_that_a_deployment_has_itself_mean_others",
        wanted("batch", 2, labels={"kind": "batch"}, anti_affinity=[FROM_BATCH]),
        [node("a", 1)],
        ["a-0", "a-0"],
    ),
    Case(
        "a_replica_that_stops_is_still_there",
        wanted(replica_count=1, anti_affinity=[SELF]),
        [node("a")],
        [],
        [placement("chat-0", "a-0", is_stopping=True)],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=attrgetter("name"))
def test_replicas_go_only_where_they_may(case: Case) -> None:
    own = {each.index for each in case.placements if each.deployment == case.wanted.deployment and not each.is_stopping}
    indexes = [index for index in range(case.wanted.replica_count) if index not in own]
    places = place(case.wanted, indexes, placements=case.placements, nodes=case.nodes, others=case.others)
    assert where(places.proposals) == case.want
    assert len(places.unplaced) == len(indexes) - len(case.want)


def test_a_replica_that_moves_is_no_neighbour_of_itself() -> None:
    standing = [placement("chat-0", "a-0")]
    avoid = {(A, GpuUuid("a-0"))}
    places = place(wanted(anti_affinity=[SELF]), [0], placements=standing, nodes=[node("a", 2)], avoid=avoid)
    assert where(places.proposals) == ["a-1"]


@pytest.mark.parametrize(
    ("wanted", "nodes", "reason"),
    [
        pytest.param(
            wanted(node_labels={"zone": "x", "disk": "fast"}),
            [node("a", labels={"disk": "slow"})],
            "node a lacks the label disk=fast (it has slow), zone=x (it has none): "
            "start its node agent with the labels, or ask for others in node_labels",
            id="labels",
        ),
        pytest.param(
            wanted(),
            [TAINTED],
            "node a has the taint batch=night, which is not tolerated: "
            "tolerate it with tolerations, or add a node without it",
            id="taint",
        ),
        pytest.param(
            wanted(allowed_gpus=[NodeGpus(A, frozenset({5, 3})), NodeGpus(None, uuids=frozenset({GpuUuid("u")}))]),
            [node("a", 2)],
            "GPU 0 of node a is not among allowed_gpus (node a GPU 3, 5; every node u) (nor are 2 of 2 GPUs): "
            "add it to allowed_gpus, or free one that is there",
            id="allowed_gpus",
        ),
        pytest.param(
            wanted(replica_count=2, anti_affinity=[SELF]),
            [node("a", 2)],
            'GPU 1 of node a is kept apart from "chat-0" by anti_affinity of "chat" (as 2 of 2 GPUs are): '
            "add a node, ask for fewer replicas, or leave out anti_affinity",
            id="apart",
        ),
        pytest.param(
            wanted(gpus_per_replica=2),
            [node("a", [gpu("a", 0), gpu("a", 1, used_gib=22)]), node("b")],
            "on each of 2 GPUs of one node; node a has 1 of 2 such GPUs, GPU 0 with 24 GiB available: "
            "add a node with 2 such GPUs, or lower gpus_per_replica",
            id="gang",
        ),
        pytest.param(
            wanted(replica_count=2, gpus_per_replica=2, allows_sharing=False),
            [node("a", 2)],
            "on each of 2 GPUs of one node, on GPUs of its own; "
            'GPU 0 of node a is taken by "chat-0" and sharing is off '
            "(2 of 2 GPUs are taken): add a GPU, or delete it and create it again with allow_shared_gpu",
            id="gang_that_shares_with_nobody",
        ),
        pytest.param(
            wanted(replica_count=2, gpus_per_replica=2, gpu_count=4),
            [node("a", 3)],
            "on each of 2 GPUs of one node; gpu_count is 4 and 2 GPUs can be used in such sets, "
            "GPU 2 of node a has 24 GiB available and is left over: add a GPU, or lower gpu_count",
            id="gang_with_a_gpu_count",
        ),
    ],
)
def test_what_rules_a_place_out_is_named_with_the_numbers_and_the_cure(
    wanted: Wanted, nodes: Sequence[Node], reason: str
) -> None:
    unplaced = place(wanted, range(wanted.replica_count), placements=[], nodes=nodes).unplaced[-1]
    said = unplaced.reason.removeprefix(f'replica "chat-{unplaced.index}" needs 5 GiB').removeprefix("; ").strip()
    assert said.startswith(reason)


def test_the_other_side_of_an_anti_affinity_is_named_too() -> None:
    asked = wanted(labels={"app": "chat"})
    (unplaced,) = place(asked, [0], placements=[placement("shy-0", "a-0")], nodes=[node("a")], others=[SHY]).unplaced
    assert 'kept apart from "shy-0" by anti_affinity of "chat" or "shy"' in unplaced.reason
