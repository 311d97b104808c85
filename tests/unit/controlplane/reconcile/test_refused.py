"""How long a refusal is remembered."""

from __future__ import annotations

from dataclasses import replace

from controlplane.reconcile.refused import ALTOGETHER_S, REMEMBERED_S, Refused
from tests.support.fleets import node, placement

REFUSED = placement("chat-0", "a-0")
NODES = {node("a").id: replace(node("a"), refused={REFUSED.replica_uid: "no"})}


def test_a_refusal_is_remembered_for_a_while_after_the_replica_was_moved() -> None:
    refused = Refused()
    refused.note([REFUSED], NODES, 100.0)
    refused.note([placement("chat-0", "b-0")], NODES, 100.0 + REMEMBERED_S - 1)
    assert {replica: set(spots) for replica, spots in refused.spots.items()} == {("uid-chat", 0): {("a", "a-0")}}
    refused.note([], NODES, 100.0 + REMEMBERED_S)
    assert not refused.spots


def test_a_refusal_that_goes_on_does_not_grow_old() -> None:
    refused = Refused()
    for now_s in range(0, 10 * int(REMEMBERED_S), 10):
        refused.note([REFUSED], NODES, float(now_s))
    assert list(refused.spots) == [("uid-chat", 0)]


def test_only_what_a_node_says_of_a_placement_that_stands_is_noted() -> None:
    refused = Refused()
    refused.note([placement("chat-1", "a-0"), placement("chat-0", "a-0", epoch=2)], NODES, 0.0)
    assert not refused.spots


def test_a_node_without_the_files_is_remembered_whole_and_longer() -> None:
    lacking = replace(
        node("a", 2), refused={REFUSED.replica_uid: "no"}, refused_altogether=frozenset({REFUSED.replica_uid})
    )
    refused = Refused()
    refused.note([REFUSED], {lacking.id: lacking}, 0.0)
    refused.note([], {}, ALTOGETHER_S - 1)
    assert {replica: set(spots) for replica, spots in refused.spots.items()} == {
        ("uid-chat", 0): {("a", "a-0"), ("a", "a-1"), ("a", None)}
    }
    refused.note([], {}, ALTOGETHER_S)
    assert not refused.spots
