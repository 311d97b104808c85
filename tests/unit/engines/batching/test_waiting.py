"""Who joins next."""

from dataclasses import dataclass

import pytest

from engines.batching.sequence import Sequence
from engines.batching.tenants import Account
from engines.batching.waiting import PATIENCE_MS, Waiting
from tests.support.batching import keys, sequence_of

AGEING_MS = 1_000


@dataclass
class Arrival:
    key: str
    priority: int = 0
    tenant: str = ""
    deadline_s: float | None = None
    at_ms: int = 0
    has_run: bool = False


def waiting(*arrivals: Arrival, given: dict[str, int] | None = None) -> Waiting:
    """Returns a queue to which these have come in this order, from tenants that were given so many tokens."""
    queue = Waiting(AGEING_MS)
    for number, each in enumerate(arrivals):
        sequence = sequence_of(3, key=each.key, priority=each.priority, tenant=each.tenant, deadline_s=each.deadline_s)
        sequence.number, sequence.arrived_ms, sequence.account = number, each.at_ms, Account()
        sequence.account.token_count = (given or {}).get(each.tenant, 0)
        sequence.epoch = int(each.has_run)
        queue.add(sequence)
    return queue


def drained(queue: Waiting, now_ms: int = 0) -> list[Sequence]:
    """Takes out all in the order in which they would join at this time."""
    order = []
    while (sequence := queue.first(now_ms)) is not None:
        queue.remove(sequence)
        order.append(sequence)
    return order


@pytest.mark.parametrize(
    ("arrivals", "order"),
    [
        pytest.param([Arrival("a"), Arrival("b"), Arrival("c")], "abc", id="first-come-first-served"),
        pytest.param([Arrival("a"), Arrival("b", priority=1), Arrival("c", priority=-1)], "bac", id="priority"),
        pytest.param([Arrival("a", tenant="much"), Arrival("b", tenant="little")], "ba", id="tenant-given-least"),
        pytest.param(
            [Arrival("a", tenant="little"), Arrival("b", tenant="much", priority=1)], "ba", id="priority-before-tenant"
        ),
        pytest.param(
            [Arrival("a"), Arrival("b", deadline_s=9), Arrival("c", deadline_s=5)], "cba", id="earliest-deadline"
        ),
        pytest.param(
            [Arrival("a", tenant="little"), Arrival("b", tenant="much", deadline_s=5)],
            "ab",
            id="tenant-before-deadline",
        ),
        pytest.param(
            [Arrival("a", deadline_s=5), Arrival("b", has_run=True), Arrival("c")], "bac", id="who-has-run-before"
        ),
    ],
)
def test_who_joins_next(arrivals: list[Arrival], order: str) -> None:
    assert keys(drained(waiting(*arrivals, given={"much": 10, "little": 1}))) == list(order)


@pytest.mark.parametrize(
    ("now_ms", "first"),
    [
        pytest.param(1_999, "high", id="one-priority-short"),
        pytest.param(2_000, "low", id="as-high-now: and it came first"),
        pytest.param(900_000, "low", id="long-after"),
    ],
)
def test_waiting_raises_the_priority(now_ms: int, first: str) -> None:
    queue = waiting(Arrival("low", priority=0), Arrival("high", priority=2, at_ms=now_ms))
    assert keys(drained(queue, now_ms))[0] == first


def test_waiting_raises_nobody_above_the_highest_that_waits() -> None:
    early = [Arrival(f"early-{number}", tenant="flood") for number in range(3)]
    late = Arrival("late", tenant="other", at_ms=50_000)
    queue = waiting(*early, late, given={"flood": 10, "other": 1})
    assert keys(drained(queue, now_ms=50_000))[0] == "late"


def test_a_row_of_deadlines_does_not_hold_up_what_has_none_for_ever() -> None:
    patient = Arrival("patient")
    urgent = [Arrival(f"urgent-{ms}", at_ms=ms, deadline_s=(ms + 100) / 1_000) for ms in range(0, 2 * PATIENCE_MS, 500)]
    order = keys(drained(waiting(patient, *urgent)))
    before = order[: order.index("patient")]
    assert before == [each.key for each in urgent if each.at_ms + 100 < PATIENCE_MS]


def test_what_is_removed_is_not_counted_and_does_not_come() -> None:
    queue = waiting(Arrival("a"), Arrival("b", priority=1), Arrival("c"))
    sequences = {each.work.key: each for each in drained(queue)}
    for each in sequences.values():
        queue.add(each)
    for key in "bc":
        queue.remove(sequences[key])
    assert len(queue) == 1
    assert keys(drained(queue)) == ["a"]
    assert len(queue) == 0
