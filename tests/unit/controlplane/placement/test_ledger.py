"""What one deployment is given, and what is left for the next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from controlplane.model import Placement
from controlplane.placement.ledger import Ledger, in_order
from controlplane.placement.standing import newest
from tests.support.fleets import gpu, node, placement, wanted, where


def test_what_one_deployment_is_given_the_next_cannot_have() -> None:
    ledger = Ledger([node("a", 2)], [], owners={})
    assert where(ledger.fill(wanted("first", 3, need_gib=12), []).proposals) == ["a-0", "a-1", "a-0"]
    assert where(ledger.fill(wanted("second", 2, need_gib=12), []).proposals) == ["a-1"]


def test_a_gpu_that_is_given_to_one_that_shares_with_nobody_is_its_own() -> None:
    ledger = Ledger([node("a", 2)], [], owners={})
    ledger.fill(wanted("solo", allows_sharing=False, need_gib=1), [])
    assert where(ledger.fill(wanted(replica_count=2), []).proposals) == ["a-1", "a-1"]


def test_what_a_node_is_told_of_counts_whichever_of_its_gpus_it_is_on() -> None:
    ledger = Ledger([node("a", 2)], [], owners={})
    ledger.fill(wanted("first", 999, need_gib=0.001, gpu_count=1), [])
    assert len(ledger.fill(wanted("second", 2, need_gib=0.001), []).proposals) == 1
    assert ledger.fill(wanted("third", need_gib=0.001), []).proposals == ()


def test_replicas_that_have_a_place_are_given_none() -> None:
    ledger = Ledger([node("a")], own := [placement("chat-0", "a-0"), placement("chat-2", "a-0")], owners={})
    assert [each.index for each in ledger.fill(wanted(replica_count=3), own).proposals] == [1]
    assert ledger.fill(wanted(replica_count=0), own).proposals == ()


@pytest.mark.parametrize(
    ("own", "staying"),
    [
        pytest.param([placement("chat-1", "a-1"), placement("chat-0", "a-0")], ["a-0", "a-1"], id="by_index"),
        pytest.param([placement("chat-0", "a-0", epoch=2), placement("chat-0", "a-1")], ["a-0"], id="the_newest"),
        pytest.param([placement("chat-0", "a-0", is_stopping=True)], [], id="none_that_stops"),
        pytest.param([placement("chat-2", "a-0")], ["a-0"], id="whatever_its_index"),
        pytest.param(
            [placement(f"chat-{index}", f"a-{index}") for index in (3, 1, 2)], ["a-1", "a-2"], id="none_that_is_surplus"
        ),
    ],
)
def test_of_the_placements_of_a_deployment_stay(own: Sequence[Placement], staying: Sequence[str]) -> None:
    assert where(newest(wanted(replica_count=2), own)) == staying


def test_what_was_made_first_is_placed_first_and_of_equals_the_first_by_name() -> None:
    those = [
        wanted("b", create_revision=7),
        wanted("d", create_revision=3),
        wanted("a", create_revision=9),
        wanted("c", create_revision=3),
    ]
    assert [each.deployment for each in in_order(those)] == ["c", "d", "b", "a"]


def test_replicas_that_are_given_another_place_keep_off_what_they_avoid() -> None:
    standing = [placement("chat-0", "a-0"), placement("chat-1", "a-0")]
    ledger = Ledger([node("a", [gpu("a", 0), gpu("a", 1, busy=0.9)])], standing, owners={})
    places = ledger.give(wanted(replica_count=2), [0, 1], own=standing, avoid={(node("a").id, gpu("a", 0).uuid)})
    assert where(places.proposals) == ["a-1", "a-1"]
