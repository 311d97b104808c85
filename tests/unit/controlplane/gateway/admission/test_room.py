"""How much a gateway lets into engines, alone and beside others."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.admission.room import UNTOLD_BATCH, Facts, Room, facts_of, room_of
from controlplane.model import NodeId, ReplicaUid, Route

ROUTE = Route(
    "chat", 0, ReplicaUid("r"), 1, NodeId("a"), "h:1", "e", b"k", True, 5, 2, max_running_count=8, kv_token_count=1000
)


def test_what_engines_can_take_is_what_those_that_are_ready_say() -> None:
    facts = facts_of([ROUTE, ROUTE, replace(ROUTE, is_ready=False)], 1)
    assert facts is not None
    assert (facts.batch, facts.token_count, facts.reported_count) == (16, 2000, 14)
    assert facts_of([replace(ROUTE, is_ready=False)], 1) is None


def test_of_an_engine_that_does_not_say_something_is_assumed() -> None:
    facts = facts_of([ROUTE, replace(ROUTE, max_running_count=0, kv_token_count=0)], 1)
    assert facts is not None
    assert (facts.batch, facts.token_count) == (8 + UNTOLD_BATCH, None)


def test_counts_of_another_time_count_for_nothing() -> None:
    facts = facts_of([ROUTE, replace(ROUTE, is_stale=True)], 2)
    assert facts is not None
    assert facts.reported_count is None


def test_a_little_more_than_the_batch_is_let_in_and_no_more() -> None:
    for batch in (1, 8, 32, 256):
        facts = facts_of([replace(ROUTE, max_running_count=batch)], 1)
        room = room_of(facts, 0)
        assert batch < room.sequences < room.express_sequences <= batch + 2 + batch / 4


def test_where_nothing_is_ready_nothing_is_held_up() -> None:
    assert room_of(None, 5) == Room() == Room(math.inf, math.inf, math.inf)


FACTS = st.builds(
    Facts,
    batch=st.integers(1, 300),
    spare=st.integers(1, 10),
    express=st.integers(0, 40),
    token_count=st.none() | st.integers(1, 10**6),
    reported_count=st.none() | st.integers(0, 600),
    gateway_count=st.integers(1, 8),
)


@given(FACTS, st.integers(0, 400))
def test_each_gateway_has_its_part_and_none_has_more_than_there_is(facts: Facts, own: int) -> None:
    room = room_of(facts, own)
    all_ = facts.batch + facts.spare
    assert all_ / facts.gateway_count <= room.sequences <= all_
    assert room.sequences <= room.express_sequences <= all_ + facts.express
    if facts.gateway_count == 1:
        assert room.sequences == all_


def settled(own: list[int], wanted: list[int], facts: Facts, looks: int) -> list[int]:
    """Returns what gateways have at engines, when each follows the reports for a while; requests end one by one."""
    for _ in range(looks):
        reported = sum(own)
        rooms = [room_of(replace(facts, reported_count=reported, gateway_count=len(own)), each) for each in own]
        for number, room in enumerate(rooms):
            own[number] = max(0, own[number] - 3)  # ended since the last look
            own[number] = max(own[number], int(min(room.sequences, wanted[number])))
    return own


def test_one_gateway_uses_what_the_other_leaves_and_gives_it_back() -> None:
    facts = Facts(batch=32, spare=2, express=0)
    own = settled([0, 0], [100, 0], facts, 5)
    assert own == [34, 0]
    own = settled(own, [100, 100], facts, 20)
    assert all(each >= 17 for each in own)
    assert sum(own) <= 38
    own = settled(own, [100, 4], facts, 20)
    assert own[1] == 4
    assert own[0] >= 27


@given(st.lists(st.integers(0, 60), min_size=2, max_size=4), st.lists(st.integers(0, 100), min_size=4, max_size=4))
def test_no_gateway_is_kept_from_its_part_whatever_the_others_have(own: list[int], wanted: list[int]) -> None:
    facts = Facts(batch=32, spare=2, express=0)
    after = settled(list(own), wanted, facts, 40)
    for number, each in enumerate(after):
        assert each >= min(wanted[number], 34 // len(own))
