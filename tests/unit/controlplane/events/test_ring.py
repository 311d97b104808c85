"""Events take a bounded number of places; what happens again is counted, and what is oldest goes first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events import ring
from controlplane.events.happenings import Happening
from controlplane.events.ring import WINDOW_S, Kept, Noted, group_of, write
from roundhouse.kit.times import from_timestamp
from roundhouse.v1.event_pb2 import EVENT_TYPE_WARNING, Event


class Log:
    """What is kept, written batch by batch."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.next_number, self.dropped_revision, self.revision = 1, 0, 0

    def write(self, *happenings: Happening, at_s: float = 0.0) -> None:
        batch = write(
            self.kept, [Noted(each, at_s, at_s) for each in happenings], self.next_number, self.dropped_revision
        )
        self.revision += 1
        self.kept |= {place: Kept(event, self.revision) for place, event in batch.events.items()}
        self.next_number, self.dropped_revision = batch.next_number, batch.dropped_revision

    @property
    def events(self) -> list[Event]:
        return sorted((each.event for each in self.kept.values()), key=lambda each: each.name)


def happening(object_: str = "nodes/a", message: str = "x") -> Happening:
    return Happening(object_, "Lost", message, is_warning=True)


def test_a_new_event_has_all_that_is_known_of_it() -> None:
    log = Log()
    log.write(happening(), at_s=5.0)
    [event] = log.events
    assert (event.name, event.object, event.reason, event.message) == (
        "events/0000000000000001", "nodes/a", "Lost", "x",
    )  # fmt: skip
    assert (event.type, event.count) == (EVENT_TYPE_WARNING, 1)
    assert (from_timestamp(event.first_time), from_timestamp(event.last_time)) == (5.0, 5.0)


def test_the_same_within_the_window_is_counted_and_the_window_moves_along() -> None:
    log = Log()
    for number in range(4):
        log.write(happening(), at_s=number * WINDOW_S)
    [event] = log.events
    assert (event.count, from_timestamp(event.first_time), from_timestamp(event.last_time)) == (4, 0.0, 3 * WINDOW_S)
    log.write(happening(), at_s=4 * WINDOW_S + 1)
    assert [each.count for each in log.events] == [4, 1]
    log.write(happening(), at_s=4 * WINDOW_S + 2)
    assert [each.count for each in log.events] == [4, 2]


@pytest.mark.parametrize("other", [happening("nodes/b"), happening(message="y"), Happening("nodes/a", "Joined", "x")])
def test_what_differs_in_anything_is_another_event(other: Happening) -> None:
    log = Log()
    log.write(happening(), other)
    assert [each.count for each in log.events] == [1, 1]


def test_a_long_message_is_cut_and_still_the_same() -> None:
    log = Log()
    log.write(happening(message="x" * 5000))
    log.write(happening(message="x" * 5000))
    [event] = log.events
    assert (len(event.message), event.count) == (1000, 2)


def test_one_deployment_with_its_replicas_drives_out_nobody_elses_events() -> None:
    log = Log()
    log.write(happening("nodes/a"))
    for number in range(300):
        log.write(happening(f"deployments/x/replicas/{number % 7}", f"{number}"), at_s=number)
    assert Counter(group_of(each.object) for each in log.events) == {"nodes/a": 1, "deployments/x": ring.PLACES_EACH}
    assert {int(each.message) for each in log.events if each.object != "nodes/a"} == set(range(200, 300))
    assert log.dropped_revision == 201  # batch 1 was of the node


def test_when_all_places_are_taken_what_has_not_happened_for_longest_goes() -> None:
    log = Log()
    for number in range(ring.PLACES):
        log.write(happening(f"nodes/n{number}"), at_s=1.0)
    log.write(happening("nodes/n0"), at_s=2.0)
    log.write(happening("nodes/new"), at_s=3.0)
    objects = {each.object for each in log.events}
    assert len(objects) == ring.PLACES
    assert {"nodes/n0", "nodes/new"} <= objects
    assert "nodes/n1" not in objects


STEPS = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=12).map(
        lambda pairs: [happening(f"nodes/n{node}", f"m{message}") for node, message in pairs]
    ),
    max_size=20,
)


@given(STEPS, st.integers(1, 8), st.integers(1, 4))
def test_after_any_history_bounds_hold_and_every_name_stands_for_one_event(
    steps: list[list[Happening]], places: int, each_of: int
) -> None:
    before = ring.PLACES, ring.PLACES_EACH
    ring.PLACES, ring.PLACES_EACH = places, each_of
    try:
        log, seen = Log(), dict[str, tuple[str, str]]()
        for number, step in enumerate(steps):
            log.write(*step, at_s=number * WINDOW_S / 3)
            assert len(log.kept) <= places
            assert all(count <= each_of for count in Counter(group_of(each.object) for each in log.events).values())
            for event in log.events:
                assert seen.setdefault(event.name, (event.object, event.message)) == (event.object, event.message)
            assert log.dropped_revision < log.revision
    finally:
        ring.PLACES, ring.PLACES_EACH = before
