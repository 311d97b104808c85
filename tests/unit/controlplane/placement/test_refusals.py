"""What is said of a replica that has no place: the numbers, and the cure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from controlplane.model import Need, Node, Placement, SharingSource, Wanted
from controlplane.placement.fit import MAX_NODE_REPLICAS, Place
from tests.support.fleets import GIB, gpu, node, place, placement, wanted


def reasons(
    wanted: Wanted,
    nodes: Sequence[Node],
    placements: Sequence[Placement] = (),
    others: Collection[Wanted] = (),
    avoid: Collection[Place] = (),
) -> list[str]:
    places = place(wanted, range(wanted.replica_count), placements=placements, nodes=nodes, others=others, avoid=avoid)
    return [each.reason for each in places.unplaced]


SOLO = wanted("solo", allows_sharing=False)
FULL = [placement(f"x-{index}", "a-0", gib=0.001) for index in range(MAX_NODE_REPLICAS)]
STATED = replace(wanted(need_gib=30), need=Need(30 * GIB, GIB, GIB, GIB, is_stated=True))
COMPUTED = replace(wanted(need_gib=30), need=Need(30 * GIB, 27 * GIB, GIB, 2 * GIB))


@pytest.mark.parametrize(
    ("wanted", "nodes", "placements", "reason"),
    [
        pytest.param(
            wanted(need_gib=5.6),
            [node("a")],
            [placement("other-0", "a-0", gib=20.9)],
            'replica "chat-0" needs 5.6 GiB; GPU 0 of node a has 3.1 GiB available (24 GiB - 20.9 GiB reserved): '
            "add a node, or lower kv_cache_memory_bytes",
            id="memory",
        ),
        pytest.param(
            wanted(need_gib=20),
            [node("a", [gpu("a", 0, used_gib=5), gpu("a", 1, used_gib=2.5)])],
            [placement("other-0", "a-1", gib=2)],
            'replica "chat-0" needs 20 GiB; GPU 1 of node a has 19.5 GiB available '
            "(24 GiB - 2.5 GiB used by others - 2 GiB reserved)",
            id="memory_of_the_gpu_that_lacks_least",
        ),
        pytest.param(
            STATED,
            [node("a", 2)],
            [],
            'replica "chat-0" needs 30 GiB; GPU 0 of node a has 24 GiB available, the most of 2 GPUs: '
            "add a node, or lower memory_bytes",
            id="memory_that_the_user_stated",
        ),
        pytest.param(
            wanted(),
            [replace(node("a"), is_cordoned=True), node("b", is_ready=False)],
            [],
            'replica "chat-0" needs 5 GiB; node a is cordoned: uncordon it, or add a node',
            id="cordoned",
        ),
        pytest.param(
            COMPUTED,
            [node("a")],
            [],
            'replica "chat-0" needs 30 GiB (27 GiB weights + 1 GiB KV cache + 2 GiB overhead); '
            "GPU 0 of node a has 24 GiB available: add a node, or take a smaller model, or a quantization",
            id="arithmetic_of_weights_that_are_too_large",
        ),
        pytest.param(
            replace(COMPUTED, need=Need(30 * GIB, 20 * GIB, 8 * GIB, 2 * GIB)),
            [node("a")],
            [],
            'replica "chat-0" needs 30 GiB (20 GiB weights + 8 GiB KV cache + 2 GiB overhead); '
            "GPU 0 of node a has 24 GiB available: add a node, or lower kv_cache_memory_bytes",
            id="arithmetic_of_a_cache_that_is_too_large",
        ),
        pytest.param(
            replace(COMPUTED, need=Need(30 * GIB, 20 * GIB, 8 * GIB, 2 * GIB, is_fitted=True)),
            [node("a")],
            [],
            'replica "chat-0" needs 30 GiB (20 GiB weights + 8 GiB KV cache + 2 GiB overhead); '
            "GPU 0 of node a has 24 GiB available: add a node, or take a smaller model, or a quantization",
            id="the_least_that_was_fitted",
        ),
        pytest.param(
            wanted(need_gib=70, gpus_per_replica=0),
            [node("a", 0), node("b", 0)],
            [],
            'replica "chat-0" needs 70 GiB; node a has 64 GiB available, the most of 2 nodes: '
            "add a node, or lower kv_cache_memory_bytes",
            id="memory_of_hosts",
        ),
        pytest.param(
            wanted(allows_sharing=False, sharing_source="default"),
            [node("a", 2)],
            [placement("x-0", "a-0"), placement("x-1", "a-1")],
            'replica "chat-0" needs 5 GiB on a GPU of its own; GPU 0 of node a is taken by "x-0" and sharing is off '
            "(2 of 2 GPUs are taken): add a GPU, or set ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU=1",
            id="sharing_is_off",
        ),
        pytest.param(
            wanted(),
            [node("a")],
            [placement("solo-0", "a-0")],
            'replica "chat-0" needs 5 GiB; GPU 0 of node a is taken by "solo-0", which shares with nobody: '
            "add a GPU, or delete that deployment and create it again with allow_shared_gpu",
            id="another_shares_with_nobody",
        ),
        pytest.param(
            wanted(need_gib=0.001),
            [node("a", 2), node("b", [gpu("b", 0, used_gib=24)])],
            FULL,
            'replica "chat-0" needs 1.0 MiB; node a has 1000 replicas, and no node takes more than 1000: '
            "add a node, or ask for fewer replicas",
            id="node_that_can_be_told_of_no_more",
        ),
        pytest.param(
            wanted(),
            [node("b", 0)],
            [],
            'replica "chat-0" needs 5 GiB; node b has no GPU, and "chat" goes to GPUs: '
            "add a node with a GPU, or delete it and create it again with gpus_per_replica 0",
            id="hosts_only",
        ),
        pytest.param(
            wanted(is_for_gpus=True),
            [node("a", is_ready=False), node("b", 0)],
            [],
            'replica "chat-0" needs 5 GiB; node a does not report: start its node agent, or add a node',
            id="hosts_and_a_gpu_that_is_lost",
        ),
        pytest.param(
            wanted(),
            [node("a", is_ready=False)],
            [],
            'replica "chat-0" needs 5 GiB; node a does not report: start its node agent, or add a node',
            id="no_report",
        ),
        pytest.param(
            wanted(),
            [node("a", [gpu("a", 0, is_healthy=False), gpu("a", 1, is_healthy=False)]), node("b", 0, is_ready=False)],
            [],
            'replica "chat-0" needs 5 GiB; GPU 0 of node a has failed: mend the GPU, or add a node',
            id="failed",
        ),
        pytest.param(
            wanted(), [], [], 'replica "chat-0" needs 5 GiB; no node is connected: start a node agent', id="no_node"
        ),
    ],
)
def test_a_refusal_gives_the_numbers_and_the_cure(
    wanted: Wanted, nodes: Sequence[Node], placements: Sequence[Placement], reason: str
) -> None:
    (said,) = reasons(wanted, nodes, placements, others=[SOLO])
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        pytest.param("default", "set ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU=1", id="by_the_cluster"),
        pytest.param("request", "create it with allow_shared_gpu", id="by_the_request"),
        pytest.param("record", "delete it and create it again with allow_shared_gpu", id="when_it_was_created"),
    ],
)
def test_the_third_replica_on_two_gpus_is_refused_by_name_and_told_what_would_let_it_share(
    source: SharingSource, cure: str
) -> None:
    three = wanted(replica_count=3, allows_sharing=False, sharing_source=source)
    (said,) = reasons(three, [node("a", 2)])
    assert said == (
        'replica "chat-2" needs 5 GiB on a GPU of its own; GPU 0 of node a is taken by "chat-0" and sharing is off '
        f"(2 of 2 GPUs are taken): add a GPU, or {cure}"
    )


def test_a_gpu_that_gpu_count_asks_for_and_is_not_there_is_said_to_be_missing() -> None:
    said = reasons(wanted(replica_count=3, gpu_count=2), [node("a", [gpu("a", 0), gpu("a", 1, used_gib=20)])])
    assert said == [
        'replica "chat-2" needs 5 GiB on each of 2 GPUs; 1 GPU can be used, '
        "GPU 1 of node a has 4 GiB available (24 GiB - 20 GiB used by others): add a GPU, or lower gpu_count"
    ]


def test_a_gpu_that_gpu_count_leaves_out_is_said_to_be_left_out() -> None:
    (said,) = reasons(wanted(replica_count=5, need_gib=10, gpu_count=2), [node("a", 3)])
    assert said == (
        'replica "chat-4" needs 10 GiB; GPU 2 of node a has 24 GiB available, but gpu_count is 2 and others are used: '
        "raise gpu_count"
    )


def test_a_place_that_a_node_refused_is_said_to_be_refused() -> None:
    avoid = {(node("a").id, gpu("a", 0).uuid)}
    assert reasons(wanted(), [node("a")], avoid=avoid) == [
        'replica "chat-0" needs 5 GiB; GPU 0 of node a was refused by its node: '
        "see the message of the replica, or add a node"
    ]


def test_every_gpu_has_a_sentence_of_its_own() -> None:
    nodes = [
        node("a", [gpu("a", 0, is_healthy=False), gpu("a", 1, used_gib=23)]),
        node("b", 0),
        node("c", is_ready=False),
    ]
    (unplaced,) = place(wanted(), [0], placements=[], nodes=nodes).unplaced
    assert unplaced.lacks == (
        ("nodes/a/gpus/0", "GPU 0 of node a has failed"),
        ("nodes/a/gpus/1", "GPU 1 of node a has 1 GiB available (24 GiB - 23 GiB used by others)"),
        ("nodes/b", 'node b has no GPU, and "chat" goes to GPUs'),
        ("nodes/c/gpus/0", "node c does not report"),
    )
