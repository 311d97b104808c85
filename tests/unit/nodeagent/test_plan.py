"""What a node does next, as tables and as one property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.model import Assigned, Assignment, Desired, Known, Order, Reading, State
from nodeagent.plan import (
    DRAIN_S,
    ORPHAN_GRACE_S,
    REFUSAL_S,
    Action,
    Forget,
    Keep,
    MarkOrphan,
    Refuse,
    Start,
    Stop,
    Wait,
    early_deaths_after,
    is_crash_loop,
    plan,
    refusal,
    restart_delay_s,
)

GIB = 1024**3
NOW_S = 5_000.0
ORDER = Order("cluster", 3, 40)


def assigned(
    uid: str = "a", desired: Desired = Desired.RUNNING, *, gpus: tuple[str, ...] = (), gib: int = 1
) -> Assigned:
    return Assigned(f"deployments/chat/replicas/{uid}", uid, 1, 1, desired, b"", gpus, gib * GIB, 30.0)


def known(uid: str, state: State, **fields: object) -> Known:
    return replace(Known(uid, state, (), GIB), **fields)  # type: ignore[arg-type]


def gpu(uuid: str = "g", *, foreign_gib: int = 0, **fields: object) -> Reading:
    reading = Reading(uuid, 0, "", is_simulated=True, total_bytes=24 * GIB, foreign_bytes=foreign_gib * GIB)
    return replace(reading, **fields)  # type: ignore[arg-type]


def planned(
    wanted: list[Assigned],
    have: list[Known],
    gpus: list[Reading] | None = None,
    refused: dict[str, float] | None = None,
) -> list[Action]:
    return plan(Assignment(ORDER, tuple(wanted)), have, gpus or [], refused or {}, NOW_S)


STOP = assigned(desired=Desired.STOPPED)
CASES = {
    "an unknown replica is started": ([assigned()], [], [Start(assigned())]),
    "one that is being prepared is let be": ([assigned()], [known("a", State.PREPARING)], []),
    "one that starts is let be": ([assigned()], [known("a", State.STARTING)], []),
    "one that serves is let be": ([assigned()], [known("a", State.READY)], []),
    "one that failed is started when its time has come": (
        [assigned()],
        [known("a", State.FAILED, next_start_s=NOW_S)],
        [Start(assigned())],
    ),
    "one that failed waits for its time": (
        [assigned()],
        [known("a", State.FAILED, next_start_s=NOW_S + 4)],
        [Wait(NOW_S + 4)],
    ),
    "one that failed waits for what is left of it": (
        [assigned()],
        [known("a", State.FAILED, next_start_s=NOW_S - 1, has_remains=True)],
        [],
    ),
    "one that was stopped and is wanted again is started": (
        [assigned()],
        [known("a", State.STOPPED)],
        [Start(assigned())],
    ),
    "one that is being stopped and is wanted again ends first": (
        [assigned()],
        [known("a", State.DRAINING, stop_grace_s=30.0)],
        [],
    ),
    "one that somebody else has drained is started anew": (
        [assigned()],
        [known("a", State.DRAINING)],
        [Stop("a", DRAIN_S)],
    ),
    "an orphan that is mentioned again is none": (
        [assigned()],
        [known("a", State.READY, orphan_since_s=NOW_S - 5)],
        [Keep("a")],
    ),
    "one to be stopped is stopped with the grace that the assignment gives": (
        [STOP],
        [known("a", State.READY)],
        [Stop("a", 30.0)],
    ),
    "one that is being stopped is not stopped twice": ([STOP], [known("a", State.DRAINING, stop_grace_s=30.0)], []),
    "a shorter grace is passed on": ([STOP], [known("a", State.DRAINING, stop_grace_s=300.0)], [Stop("a", 30.0)]),
    "that its deployment goes on, or no more, is passed on": (
        [replace(STOP, hands_over=True)],
        [known("a", State.DRAINING, stop_grace_s=30.0)],
        [Stop("a", 30.0, hands_over=True)],
    ),
    "one that hands over already is not stopped twice": (
        [replace(STOP, hands_over=True)],
        [known("a", State.DRAINING, stop_grace_s=30.0, hands_over=True)],
        [],
    ),
    "one that failed and is to be stopped is not started again": (
        [STOP],
        [known("a", State.FAILED, next_start_s=NOW_S)],
        [Stop("a", 30.0)],
    ),
    "one that has stopped stays known while it is mentioned": ([STOP], [known("a", State.STOPPED)], []),
    "one to be stopped that is not known needs nothing": ([STOP], [], []),
    "one that stopped and is mentioned no more is forgotten": ([], [known("a", State.STOPPED)], [Forget("a")]),
    "one that failed and is mentioned no more is forgotten": ([], [known("a", State.FAILED)], [Forget("a")]),
    "one whose memory is not back yet is not forgotten": (
        [],
        [known("a", State.FAILED, has_remains=True, orphan_since_s=NOW_S)],
        [Wait(NOW_S + ORPHAN_GRACE_S)],
    ),
    "one that runs and is not mentioned becomes an orphan": (
        [],
        [known("a", State.READY)],
        [MarkOrphan("a"), Wait(NOW_S + ORPHAN_GRACE_S)],
    ),
    "an orphan is kept for ten minutes": (
        [],
        [known("a", State.READY, orphan_since_s=NOW_S - ORPHAN_GRACE_S + 1)],
        [Wait(NOW_S + 1)],
    ),
    "an orphan is stopped after ten minutes": (
        [],
        [known("a", State.READY, orphan_since_s=NOW_S - ORPHAN_GRACE_S)],
        [Stop("a", DRAIN_S)],
    ),
    "an orphan that is being stopped is let be": (
        [],
        [known("a", State.DRAINING, orphan_since_s=0.0, stop_grace_s=DRAIN_S)],
        [],
    ),
}


@pytest.mark.parametrize(("wanted", "have", "expected"), CASES.values(), ids=CASES)
def test_plan(wanted: list[Assigned], have: list[Known], expected: list[Action]) -> None:
    assert planned(wanted, have) == expected


def test_without_an_assignment_nothing_happens() -> None:
    assert plan(None, [known("a", State.READY), known("b", State.FAILED)], [], {}, NOW_S) == []


def test_a_replica_is_refused_with_the_numbers_if_its_gpu_has_been_taken() -> None:
    wanted = assigned(gpus=("g",), gib=10)
    [refused, wait] = planned([wanted], [], [gpu(foreign_gib=16)])
    assert isinstance(refused, Refuse)
    assert refused == Refuse(wanted, message=refused.message, available_bytes=8 * GIB, not_before_s=NOW_S + REFUSAL_S)
    assert "GPU g has 8 GiB available, deployments/chat/replicas/a needs 10 GiB" in refused.message
    assert wait == Wait(NOW_S + REFUSAL_S)


@pytest.mark.parametrize(
    ("gpus", "said"),
    [([], "no GPU g"), ([gpu(failure="GPU is lost")], "GPU is lost")],
    ids=["a GPU that is not there", "a GPU that failed"],
)
def test_a_replica_is_refused_if_its_gpu_cannot_be_used(gpus: list[Reading], said: str) -> None:
    [refused, _] = planned([assigned(gpus=("g",))], [], gpus)
    assert isinstance(refused, Refuse)
    assert said in refused.message


def test_a_refused_replica_is_not_tried_before_its_time_though_there_is_room() -> None:
    assert planned([assigned(gpus=("g",))], [], [gpu()], {"a": NOW_S + 2}) == [Wait(NOW_S + 2)]


def test_two_replicas_that_do_not_fit_together_are_not_both_started() -> None:
    wanted = [assigned("a", gpus=("g",), gib=20), assigned("b", gpus=("g",), gib=20)]
    first, second, _ = planned(wanted, [], [gpu()])
    assert isinstance(first, Start)
    assert isinstance(second, Refuse)


def test_a_loaded_engine_is_not_counted_twice() -> None:
    have = known("b", State.READY, gpu_uuids=("g",), reserved_bytes=10 * GIB)
    reading = gpu(measured_bytes={"b": 9 * GIB}, used_bytes=9 * GIB)
    assert planned([assigned("b"), assigned("a", gpus=("g",), gib=14)], [have], [reading]) == [
        Start(assigned("a", gpus=("g",), gib=14))
    ]


def test_an_engine_that_took_more_than_it_reserved_is_counted_by_what_it_took() -> None:
    have = known("b", State.READY, gpu_uuids=("g",), reserved_bytes=10 * GIB)
    reading = gpu(measured_bytes={"b": 12 * GIB})
    [refused, _] = planned([assigned("b"), assigned("a", gpus=("g",), gib=14)], [have], [reading])
    assert isinstance(refused, Refuse)


FENCES = {
    "the first assignment": (None, Order("cluster", 1, 1), True),
    "the same once more": (ORDER, ORDER, True),
    "a newer generation": (ORDER, Order("cluster", 3, 41), True),
    "a newer term, though its generation is lower": (ORDER, Order("cluster", 4, 1), True),
    "an older generation": (ORDER, Order("cluster", 3, 39), False),
    "an older term, though its generation is higher": (ORDER, Order("cluster", 2, 99), False),
    "another cluster": (ORDER, Order("other", 9, 99), False),
}


@pytest.mark.parametrize(("applied", "offered", "is_accepted"), FENCES.values(), ids=FENCES)
def test_a_stale_control_plane_is_not_obeyed(applied: Order | None, offered: Order, is_accepted: bool) -> None:
    assert (refusal(applied, offered) is None) == is_accepted


DEATHS = {
    "the first, before READY": (0, None, 1, 1.0),
    "the second, before READY": (1, None, 2, 2.0),
    "right after READY": (2, 9.9, 3, 4.0),
    "later": (5, 10.0, 0, 0.0),
    "the tenth in a row": (9, None, 10, 300.0),
}


@pytest.mark.parametrize(("before", "ready_for_s", "after", "delay_s"), DEATHS.values(), ids=DEATHS)
def test_early_deaths_double_the_wait_and_later_ones_restart_at_once(
    before: int, ready_for_s: float | None, after: int, delay_s: float
) -> None:
    assert early_deaths_after(before, ready_for_s) == after
    assert restart_delay_s(after) == delay_s


@pytest.mark.parametrize(
    ("early_deaths", "ready_for_s", "expected"),
    [(2, None, False), (3, None, True), (3, 9.0, True), (3, 10.0, False)],
    ids=["two deaths", "three deaths", "three deaths and READY for a moment", "three deaths and READY for long enough"],
)
def test_a_crash_loop_begins_with_the_third_early_death_and_ends_with_recovery(
    early_deaths: int, ready_for_s: float | None, expected: bool
) -> None:
    assert is_crash_loop(early_deaths, ready_for_s) is expected


UIDS = st.sampled_from("abcd")
WANTED = st.dictionaries(UIDS, st.sampled_from(Desired))
HAVE = st.dictionaries(
    UIDS,
    st.tuples(st.sampled_from(State), st.sampled_from([None, 0.0, NOW_S - 700]), st.booleans()),
)


@given(WANTED, HAVE)
def test_obeying_the_plan_comes_to_rest(
    wanted: dict[str, Desired], have: dict[str, tuple[State, float | None, bool]]
) -> None:
    assignment = [assigned(uid, desired) for uid, desired in wanted.items()]
    engines = {
        uid: known(uid, state, orphan_since_s=since, has_remains=remains and state is State.FAILED)
        for uid, (state, since, remains) in have.items()
    }
    now_s = NOW_S
    actions: list[Action] = []
    for _ in range(10):
        _lived(engines)
        actions = plan(Assignment(ORDER, tuple(assignment)), list(engines.values()), [], {}, now_s)
        if not actions:
            break
        for action in actions:
            now_s = max(now_s, _obeyed(engines, action, now_s))
    assert not actions
    running = {uid for uid, each in engines.items() if each.state is State.READY}
    assert running == {uid for uid, desired in wanted.items() if desired is Desired.RUNNING}


def _obeyed(engines: dict[str, Known], action: Action, now_s: float) -> float:
    """Does what the supervisor does, and returns the time at which it would look again."""
    match action:
        case Start(replica):
            engines[replica.replica_uid] = known(replica.replica_uid, State.PREPARING)
        case Stop(uid, grace_s, hands_over):
            engines[uid] = replace(engines[uid], state=State.DRAINING, stop_grace_s=grace_s, hands_over=hands_over)
        case MarkOrphan(uid):
            engines[uid] = replace(engines[uid], orphan_since_s=now_s)
        case Keep(uid):
            engines[uid] = replace(engines[uid], orphan_since_s=None)
        case Forget(uid):
            del engines[uid]
        case Wait(until_s):
            return until_s
    return now_s


def _lived(engines: dict[str, Known]) -> None:
    """Lets every engine get where it is going."""
    for uid, each in engines.items():
        if each.stop_grace_s is not None:
            engines[uid] = replace(each, state=State.STOPPED, has_remains=False)
        elif each.state in (State.PREPARING, State.STARTING):
            engines[uid] = replace(each, state=State.READY)
        elif each.has_remains:
            engines[uid] = replace(each, has_remains=False)
