"""What is done about placements, case by case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

import pytest

from controlplane.model import Drain, Engine, Node, NodeId, Placement, ReplicaUid, Wanted
from controlplane.placement.moves import ReplicaKey
from controlplane.placement.strategies import STRATEGIES, Candidate, Strategy
from controlplane.plan import (
    MOST_MOVES,
    Action,
    Forget,
    MarkStopping,
    Order,
    Place,
    Plan,
    Remove,
    plan,
)
from tests.support.fleets import engine, gpu, node, placement, wanted, where

ORDER = (3, 40)  # of the assignment that every node has
Spots = Mapping[ReplicaKey, Sequence[tuple[NodeId, None]]]


def planned(
    wanted: Sequence[Wanted],
    placements: Sequence[Placement],
    nodes: Sequence[Node],
    refused: Spots | None = None,
    turn: int = 0,
    strategies: Mapping[str, Strategy] = STRATEGIES,
    leaving: Mapping[NodeId, Drain | None] | None = None,
    forgotten: Sequence[str] = (),
) -> Plan:
    orders: Mapping[NodeId, Order] = {each.id: ORDER for each in nodes}
    fresh = count(1)
    return plan(
        wanted,
        placements,
        {each.id: each for each in nodes},
        orders=orders,
        refused=refused or {},
        new_uid=lambda: ReplicaUid(f"new-{next(fresh)}"),
        strategies=strategies,
        turn=turn,
        leaving=leaving or {},
        forgotten=[NodeId(each) for each in forgotten],
    )


def outline(actions: Sequence[Action]) -> list[str]:
    """Returns one line for each action."""
    words = {Place: "place", MarkStopping: "stop", Remove: "remove"}
    return [
        f"forget {each.deployment}"
        if isinstance(each, Forget)
        else f"{words[type(each)]} {each.placement.deployment}-{each.placement.index} on {where([each.placement])[0]}"
        for each in actions
    ]


def stopping(of: Placement, grace_s: float = 30.0) -> Placement:
    return replace(of, is_stopping=True, drain_grace_s=grace_s)


def test_missing_replicas_are_placed() -> None:
    found = planned([wanted(replica_count=3)], [placement("chat-1", "a-0")], [node("a")])
    assert outline(found.actions) == ["place chat-0 on a-0", "place chat-2 on a-0"]
    assert where(found.placements) == ["a-0"] * 3


def test_a_placement_carries_what_its_replica_needs() -> None:
    (action,) = planned([wanted(need_gib=7)], [], [node("a")]).actions
    assert action == Place(replace(placement("chat-0", "a-0", gib=7), replica_uid=ReplicaUid("new-1")))


def test_nothing_is_done_once_intent_and_facts_agree() -> None:
    found = planned([wanted(replica_count=2)], [placement("chat-0", "a-0"), placement("chat-1", "a-0")], [node("a")])
    assert (found.actions, found.unplaced) == ((), ())


def test_without_a_node_nothing_is_placed_and_the_reason_is_told() -> None:
    found = planned([wanted()], [], [])
    assert found.actions == ()
    assert [each.reason for each in found.unplaced] == [
        'replica "chat-0" needs 5 GiB; no node is connected: start a node agent'
    ]


def test_one_deployment_after_the_other_takes_what_is_left() -> None:
    found = planned([wanted("first", 2, need_gib=10), wanted("second", need_gib=10)], [], [node("a")])
    assert outline(found.actions) == ["place first-0 on a-0", "place first-1 on a-0"]
    assert [(each.deployment, each.index) for each in found.unplaced] == [("second", 0)]


def test_what_was_written_first_is_placed_first_whatever_the_names() -> None:
    fleet = [node("a", [gpu("a", 0), gpu("a", 1, total_gib=10, busy=0.3)])]
    large, small = wanted("zoo", need_gib=20, create_revision=7), wanted("ant", need_gib=5, create_revision=8)
    found = planned([small, large], [], fleet)
    assert outline(found.actions) == ["place zoo-0 on a-0", "place ant-0 on a-1"]
    assert outline(planned([replace(small, create_revision=6), large], [], fleet).actions) == ["place ant-0 on a-0"]


def test_a_deployment_that_fits_is_not_held_up_by_one_that_does_not() -> None:
    found = planned([wanted("first", need_gib=100), wanted("second")], [], [node("a")])
    assert outline(found.actions) == ["place second-0 on a-0"]


def test_a_deployment_that_shares_with_nobody_keeps_others_off_its_gpu() -> None:
    solo = wanted("solo", allows_sharing=False)
    found = planned([wanted(replica_count=2), solo], [placement("solo-0", "a-0", gib=1)], [node("a", 2)])
    assert outline(found.actions) == ["place chat-0 on a-1", "place chat-1 on a-1"]


def test_a_strategy_that_fails_holds_up_only_its_own_deployments() -> None:
    def unlucky(candidate: Candidate) -> Sequence[tuple[str, float]]:
        raise ZeroDivisionError(candidate.node)

    ours, others = wanted("ours", strategy="unlucky"), wanted("others")
    found = planned([ours, others], [], [node("a")], strategies={**STRATEGIES, "unlucky": unlucky})
    assert outline(found.actions) == ["place others-0 on a-0"]
    assert [(each.deployment, each.reason.partition(":")[0]) for each in found.unplaced] == [
        ("ours", 'the strategy "unlucky" failed, ZeroDivisionError')
    ]


def test_a_refused_replica_of_several_gpus_moves_whole_and_keeps_off_all_of_them() -> None:
    refused = placement("chat-0", "a-0+a-1")
    found = planned([wanted(gpus_per_replica=2)], [refused], [replace(refusing("a", refused), gpus=node("a", 4).gpus)])
    assert outline(found.actions) == ["stop chat-0 on a-0+a-1", "place chat-0 on a-2+a-3"]


def test_the_highest_indexes_are_stopped_when_fewer_are_wanted() -> None:
    standing = [placement(f"chat-{index}", "a-0", gib=1) for index in range(4)]
    found = planned([wanted(replica_count=2, drain_grace_s=7)], standing, [node("a")])
    assert outline(found.actions) == ["stop chat-2 on a-0", "stop chat-3 on a-0"]
    assert [each.drain_grace_s for each in found.placements if each.is_stopping] == [7, 7]


def test_a_replica_that_is_wanted_again_while_it_stops_gets_another_placement() -> None:
    found = planned([wanted()], [stopping(placement("chat-0", "a-0", epoch=4))], [node("a")])
    assert outline(found.actions) == ["place chat-0 on a-0"]
    assert [(each.epoch, each.is_stopping) for each in found.placements] == [(4, True), (5, False)]


def test_a_deployment_that_is_deleted_stops_within_its_grace() -> None:
    standing = [placement("chat-0", "a-0"), placement("chat-1", "a-0")]
    found = planned([wanted(is_deleting=True, drain_grace_s=5)], standing, [node("a")])
    assert outline(found.actions) == ["stop chat-0 on a-0", "stop chat-1 on a-0"]
    assert [(each.is_stopping, each.drain_grace_s) for each in found.placements] == [(True, 5)] * 2


def test_deleting_shortens_a_drain_that_runs_and_never_extends_it() -> None:
    standing = [stopping(placement("chat-0", "a-0"), 60), stopping(placement("chat-1", "a-0"), 1)]
    running = node("a", engines=[engine(each) for each in standing])
    found = planned([wanted(is_deleting=True, drain_grace_s=5)], standing, [running])
    assert outline(found.actions) == ["stop chat-0 on a-0"]
    assert [each.drain_grace_s for each in found.placements] == [5, 1]


def test_a_deleted_deployment_is_forgotten_with_its_last_placement() -> None:
    last = stopping(placement("chat-0", "a-0"))
    done = replace(node("a"), applied=ORDER)
    found = planned([wanted(is_deleting=True)], [last], [done])
    assert outline(found.actions) == ["remove chat-0 on a-0", "forget chat"]
    assert planned([wanted(is_deleting=True)], [], []).actions == (Forget("chat", "uid-chat"),)


def test_a_deleted_deployment_is_not_forgotten_while_an_engine_of_it_runs() -> None:
    last = stopping(placement("chat-0", "a-0"))
    running = replace(node("a", engines=[engine(last)]), applied=ORDER)
    assert planned([wanted(is_deleting=True)], [last], [running]).actions == ()


def test_a_placement_goes_when_its_node_reports_the_engine_stopped() -> None:
    last = stopping(placement("chat-0", "a-0"))
    done = replace(node("a", engines=[engine(last, is_gone=True)]), applied=ORDER)
    assert outline(planned([], [last], [done]).actions) == ["remove chat-0 on a-0"]


def test_a_placement_stays_while_its_node_has_not_taken_over_the_order_to_stop() -> None:
    last = stopping(placement("chat-0", "a-0"))
    for applied in ((0, 0), (3, 39), (2, 99)):
        assert planned([], [last], [replace(node("a"), applied=applied)]).actions == ()


def test_a_placement_stays_while_its_node_is_absent_or_does_not_report() -> None:
    standing = [placement("chat-0", "a-0"), stopping(placement("chat-1", "a-0"))]
    lost = replace(node("a", is_ready=False), applied=ORDER)
    assert planned([wanted()], standing, [lost]).actions == ()
    assert planned([wanted()], standing, []).actions == ()
    assert planned([wanted()], standing, [node("b")]).actions == ()


def test_memory_that_a_stopping_replica_gave_back_is_used_in_the_same_round() -> None:
    last = stopping(placement("old-0", "a-0", gib=20))
    done = replace(node("a", engines=[engine(last, is_gone=True)]), applied=ORDER)
    found = planned([wanted(need_gib=20)], [last], [done])
    assert outline(found.actions) == ["remove old-0 on a-0", "place chat-0 on a-0"]


def test_a_deployment_of_the_same_name_adopts_nothing_of_one_that_is_gone() -> None:
    old = placement("chat-0", "a-0", uid="uid-of-the-old-one", epoch=9)
    found = planned([wanted()], [old], [node("a")])
    assert outline(found.actions) == ["stop chat-0 on a-0", "place chat-0 on a-0"]
    assert [(each.deployment_uid, each.epoch) for each in found.placements] == [
        ("uid-of-the-old-one", 9),
        ("uid-chat", 1),
    ]


def refusing(name: str, *refused: Placement) -> Node:
    return replace(node(name), refused={each.replica_uid: "3.0 GiB are left" for each in refused})


def test_a_replica_that_its_node_refuses_moves_to_another_place() -> None:
    refused = placement("chat-0", "a-0", epoch=2)
    found = planned([wanted()], [refused], [refusing("a", refused), node("b")])
    assert outline(found.actions) == ["stop chat-0 on a-0", "place chat-0 on b-0"]
    assert [(each.epoch, each.is_stopping, each.drain_grace_s) for each in found.placements] == [
        (2, True, 0.0),
        (3, False, 30.0),
    ]


def test_a_replica_that_its_node_refuses_altogether_moves_to_another_node_though_others_gpus_are_free() -> None:
    refused = placement("chat-0", "a-0")
    here = replace(refusing("a", refused), gpus=node("a", 4).gpus, refused_altogether=frozenset({refused.replica_uid}))
    assert outline(planned([wanted()], [refused], [here, node("b")]).actions) == [
        "stop chat-0 on a-0",
        "place chat-0 on b-0",
    ]
    [stays] = planned([wanted()], [refused], [here]).unplaced
    assert [words for _, words in stays.lacks] == [
        f"GPU {index} of node a was refused by its node" for index in range(4)
    ]


def test_a_replica_that_is_refused_and_fits_nowhere_else_stays_and_both_reasons_are_told() -> None:
    refused = placement("chat-0", "a-0")
    found = planned([wanted()], [refused], [refusing("a", refused)])
    assert found.actions == ()
    assert [each.reason for each in found.unplaced] == [
        'node a refuses it: 3.0 GiB are left; elsewhere: replica "chat-0" needs 5 GiB; '
        "GPU 0 of node a was refused by its node: see the message of the replica, or add a node"
    ]


def test_a_replica_does_not_go_back_to_where_it_was_refused_lately() -> None:
    refused = placement("chat-0", "b")
    nodes = [node("a", 0), replace(node("b", 0), refused={refused.replica_uid: "no"}), node("c", 0)]
    lately: Spots = {("uid-chat", 0): [(NodeId("a"), None)]}
    found = planned([wanted(gpus_per_replica=0)], [refused], nodes, lately)
    assert outline(found.actions) == ["stop chat-0 on b", "place chat-0 on c"]


def test_a_refusal_of_a_node_that_no_longer_reports_moves_nothing() -> None:
    refused = placement("chat-0", "a-0")
    lost = replace(refusing("a", refused), is_ready=False)
    assert planned([wanted()], [refused], [lost, node("b")]).actions == ()


def test_what_waits_for_a_place_goes_before_what_is_refused_where_it_stands() -> None:
    refused = placement("chat-0", "a-0", gib=20)
    found = planned([wanted(need_gib=20), wanted("other", need_gib=20)], [refused], [refusing("a", refused), node("b")])
    assert outline(found.actions) == ["place other-0 on b-0"]
    assert [(each.deployment, each.index) for each in found.unplaced] == [("chat", 0)]


def test_replicas_that_are_refused_in_one_place_move_together() -> None:
    standing = [placement(f"chat-{index}", "a-0", gib=1) for index in range(2 * MOST_MOVES)]
    nodes = [refusing("a", *standing), node("b")]
    found = planned([wanted(replica_count=len(standing), need_gib=1)], standing, nodes)
    assert Counter(where(each for each in found.placements if not each.is_stopping)) == {"b-0": 24, "a-0": 8}
    assert len(found.unplaced) == 8


def in_many_places(count: int) -> tuple[Wanted, list[Placement], list[Node]]:
    """Returns a deployment whose replicas are refused, each by a node of its own."""
    standing = [placement(f"chat-{index}", f"n{index}-0", gib=20) for index in range(count)]
    return wanted(replica_count=count, need_gib=20), standing, [refusing(each.node, each) for each in standing]


@pytest.mark.parametrize("turn", [0, 1, 7])
def test_in_one_round_so_many_replicas_are_moved_at_most(turn: int) -> None:
    deployment, standing, nodes = in_many_places(2 * MOST_MOVES + 1)
    free = [node(f"z{index}") for index in range(len(standing))]
    found = planned([deployment], standing, [*nodes, *free], turn=turn)
    assert len(where(each for each in found.placements if each.is_stopping)) == MOST_MOVES
    assert len(found.unplaced) == len(standing) - MOST_MOVES
    assert {each.reason.partition("; ")[2] for each in found.unplaced} == {
        "it is tried elsewhere when others have been"
    }


def test_turn_by_turn_every_replica_that_is_refused_is_tried_elsewhere() -> None:
    deployment, standing, nodes = in_many_places(2 * MOST_MOVES + 1)
    tried: set[int] = set()
    for turn in range(3):
        found = planned([deployment], standing, nodes, turn=turn)
        tried |= {each.index for each in found.unplaced if "elsewhere: replica" in each.reason}
        assert len(found.unplaced) == len(standing)
    assert tried == set(range(len(standing)))


def test_the_turn_makes_no_difference_to_a_few() -> None:
    deployment, standing, nodes = in_many_places(MOST_MOVES)
    plans = [planned([deployment], standing, [*nodes, node("z", 3)], turn=turn) for turn in range(3)]
    assert plans[0] == plans[1] == plans[2]
    assert sum(each.is_stopping for each in plans[0].placements) == 3


def test_a_refused_replica_keeps_to_the_gpu_count() -> None:
    standing = [placement("chat-0", "a-0"), placement("chat-1", "b-0")]
    nodes = [refusing("a", standing[0]), node("b"), node("c")]
    found = planned([wanted(replica_count=2, gpu_count=1)], standing, nodes)
    assert outline(found.actions) == ["stop chat-0 on a-0", "place chat-0 on b-0"]


def lost(name: str, *running: Placement) -> Node:
    return node(name, is_ready=False, engines=[serving(each) for each in running])


def serving(of: Placement) -> Engine:
    return replace(engine(of), is_serving=True)


LOST, OLD, NEW = {NodeId("a"): None}, placement("chat-0", "a-0"), placement("chat-0", "b-0", epoch=2)
DRAINED = {NodeId("a"): Drain(grace_s=3.0)}


def test_a_replica_of_a_lost_node_gets_a_newer_placement_and_keeps_the_older() -> None:
    found = planned([wanted()], [OLD], [lost("a", OLD), node("b")], leaving=LOST)
    assert outline(found.actions) == ["place chat-0 on b-0"]
    assert [(where([each])[0], each.epoch, each.is_stopping) for each in found.placements] == [
        ("a-0", 1, False),
        ("b-0", 2, False),
    ]
    assert planned([wanted()], found.placements, [lost("a", OLD), node("b")], leaving=LOST).actions == ()


def test_a_replica_of_a_node_that_was_not_heard_of_is_moved_too() -> None:
    assert outline(planned([wanted()], [OLD], [node("b")], leaving=LOST).actions) == ["place chat-0 on b-0"]


def test_a_replica_of_a_lost_node_that_fits_nowhere_else_stays_and_the_reason_is_told() -> None:
    found = planned([wanted()], [OLD], [lost("a", OLD)], leaving=LOST)
    assert found.actions == ()
    assert [each.reason for each in found.unplaced] == [
        'node a does not report; elsewhere: replica "chat-0" needs 5 GiB; node a does not report: '
        "start its node agent, or add a node"
    ]


@pytest.mark.parametrize(
    ("nodes", "leaving", "expected"),
    [
        pytest.param([lost("a", OLD), node("b", engines=[serving(NEW)])], LOST, [], id="the_older_is_away"),
        pytest.param([node("a", engines=[serving(OLD)]), node("b")], {}, [], id="the_newer_is_not_ready_yet"),
        pytest.param(
            [node("a", engines=[serving(OLD)]), node("b", engines=[serving(NEW)])],
            {},
            ["stop chat-0 on a-0"],
            id="both_serve",
        ),
        pytest.param([node("a"), node("b", engines=[serving(NEW)])], {}, ["stop chat-0 on a-0"], id="the_newer_serves"),
        pytest.param(
            [node("a", engines=[serving(OLD)]), lost("b", NEW)],
            {NodeId("b"): None},
            ["stop chat-0 on b-0"],
            id="the_newer_is_lost_in_turn",
        ),
        pytest.param(
            [node("a", engines=[serving(OLD)]), node("b", engines=[replace(engine(NEW), has_failed=True)])],
            {},
            ["stop chat-0 on b-0"],
            id="the_newer_dies",
        ),
        pytest.param([node("a"), node("b")], {}, [], id="neither_serves"),
    ],
)
def test_of_two_placements_of_a_replica_the_newer_stays_once_it_serves(
    nodes: Sequence[Node], leaving: Mapping[NodeId, Drain | None], expected: Sequence[str]
) -> None:
    assert outline(planned([wanted()], [OLD, NEW], nodes, leaving=leaving).actions) == expected


def test_what_was_replaced_on_a_node_that_is_not_waited_for_any_more_goes() -> None:
    nodes = [node("b", engines=[serving(NEW)])]
    stopped = planned([wanted()], [OLD, NEW], nodes, leaving=LOST, forgotten=["a"])
    assert outline(stopped.actions) == ["stop chat-0 on a-0"]
    removed = planned([wanted()], stopped.placements, nodes, leaving=LOST, forgotten=["a"])
    assert outline(removed.actions) == ["remove chat-0 on a-0"]


def test_a_drained_node_gives_up_one_replica_of_a_deployment_after_the_other_each_when_it_serves_elsewhere() -> None:
    standing = [placement("chat-0", "a-0", gib=1), placement("chat-1", "a-0", gib=1)]
    draining = replace(node("a", engines=[serving(each) for each in standing]), is_cordoned=True)
    deployment = wanted(replica_count=2, need_gib=1)
    first = planned([deployment], standing, [draining, node("b")], leaving=DRAINED)
    assert outline(first.actions) == ["place chat-0 on b-0"]
    assert planned([deployment], first.placements, [draining, node("b")], leaving=DRAINED).actions == ()
    [fresh] = [each for each in first.placements if each.node == "b"]
    there = node("b", engines=[serving(fresh)])
    second = planned([deployment], first.placements, [draining, there], leaving=DRAINED)
    assert outline(second.actions) == ["stop chat-0 on a-0", "place chat-1 on b-0"]
    assert [each.drain_grace_s for each in second.placements if each.is_stopping] == [3.0]


def test_what_does_not_serve_on_a_drained_node_leaves_it_at_once() -> None:
    draining = replace(node("a"), is_cordoned=True)
    found = planned([wanted()], [OLD], [draining, node("b")], leaving=DRAINED)
    assert outline(found.actions) == ["stop chat-0 on a-0", "place chat-0 on b-0"]


def test_what_has_no_room_elsewhere_stays_on_a_drained_node_unless_it_may_be_unserved() -> None:
    draining = replace(node("a", engines=[serving(OLD)]), is_cordoned=True)
    kept = planned([wanted()], [OLD], [draining], leaving=DRAINED)
    assert kept.actions == ()
    assert [each.reason for each in kept.unplaced] == [
        'node a is drained; elsewhere: replica "chat-0" needs 5 GiB; node a is cordoned: uncordon it, or add a node'
    ]
    forced = planned([wanted()], [OLD], [draining], leaving={NodeId("a"): Drain(3.0, allows_unserved=True)})
    assert outline(forced.actions) == ["stop chat-0 on a-0"]


def test_a_cordoned_node_keeps_its_replicas_and_gets_no_more() -> None:
    fleet = [replace(node("a", 2), is_cordoned=True), node("b", [gpu("b", 0, busy=0.9)])]
    found = planned([wanted(replica_count=2)], [placement("chat-0", "a-0")], fleet)
    assert outline(found.actions) == ["place chat-1 on b-0"]


def test_of_replicas_that_serve_on_a_drained_node_each_says_why_it_has_no_room_and_by_force_all_stop() -> None:
    standing = [placement("chat-0", "a-0"), placement("chat-1", "a-0")]
    draining = replace(node("a", engines=[serving(each) for each in standing]), is_cordoned=True)
    kept = planned([wanted(replica_count=2)], standing, [draining], leaving=DRAINED)
    assert kept.actions == ()
    assert [each.reason for each in kept.unplaced] == [
        f'node a is drained; elsewhere: replica "chat-{index}" needs 5 GiB; node a is cordoned: '
        "uncordon it, or add a node"
        for index in range(2)
    ]
    forced = planned(
        [wanted(replica_count=2)], standing, [draining], leaving={NodeId("a"): Drain(3.0, allows_unserved=True)}
    )
    assert outline(forced.actions) == ["stop chat-0 on a-0", "stop chat-1 on a-0"]
