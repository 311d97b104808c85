"""When a replica's next life starts, by a clock that a test moves; and what outlives the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.bundle import Bundle, Bundles, Record
from nodeagent.engine import Engine
from nodeagent.hearing import Status
from nodeagent.model import Assigned, Desired, Exit, Measured, State
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.times import from_timestamp
from tests.support.clock import FakeClock

ASSIGNED = Assigned("deployments/chat/replicas/0", "r-1", 1, 1, Desired.RUNNING, b"", (), 0, 0.0)
NOTHING = Measured(0, 0)
SERVING = Status(State.READY, "serving", address="127.0.0.1:1")
SILENT = Status(State.STARTING, "the engine does not answer", address="127.0.0.1:1")


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The directory of the replica."""
    bundles = Bundles(tmp_path / "engines")
    bundles.open()
    return bundles.begin(engine_spec_pb2.EngineBundle(replica_uid="r-1"), b"key", Record())


@pytest.fixture
def engine(clock: FakeClock, bundle: Bundle) -> Engine:
    """A replica about to be started for the first time."""
    return restored(clock, bundle)


def restored(clock: FakeClock, bundle: Bundle) -> Engine:
    engine = Engine(ASSIGNED, clock, lambda: None)
    engine.restore(bundle, bundle.record())
    return engine


def live(engine: Engine, clock: FakeClock, ready_for_s: float | None) -> None:
    """Lets the engine have a life, READY for so long or never."""
    engine.prepare()
    if ready_for_s is not None:
        engine.hear(SERVING)
        clock.advance(ready_for_s)
    engine.die(Exit(code=1), "")
    engine.vanish()


def wait_s(engine: Engine, clock: FakeClock) -> float:
    next_start_s = engine.known().next_start_s
    assert next_start_s is not None
    return next_start_s - clock.monotonic()


def test_deaths_before_ready_wait_twice_as_long_each_time(engine: Engine, clock: FakeClock) -> None:
    waits = []
    for _ in range(11):
        live(engine, clock, ready_for_s=None)
        waits.append(wait_s(engine, clock))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_death_soon_after_ready_counts_and_a_later_one_forgets_them_all(engine: Engine, clock: FakeClock) -> None:
    waits = []
    for ready_for_s in (None, 9.9, 10.0, 9.9):
        live(engine, clock, ready_for_s)
        waits.append(wait_s(engine, clock))
    assert waits == [1, 2, 0, 1]


def test_a_crash_loop_is_reported_from_the_third_death_until_the_engine_has_recovered(
    engine: Engine, clock: FakeClock
) -> None:
    seen = []
    for _ in range(3):
        live(engine, clock, ready_for_s=None)
        seen.append(engine.report(NOTHING).is_crash_loop)
    engine.prepare()
    engine.hear(SERVING)
    seen.append(engine.report(NOTHING).is_crash_loop)
    clock.advance(10.0)
    seen.append(engine.report(NOTHING).is_crash_loop)
    assert seen == [False, False, True, True, False]


def test_restarts_are_counted_and_the_time_of_the_next_is_reported(engine: Engine, clock: FakeClock) -> None:
    live(engine, clock, ready_for_s=None)
    report = engine.report(NOTHING)
    assert (report.restart_count, from_timestamp(report.next_start_time)) == (0, clock.now() + 1)
    live(engine, clock, ready_for_s=None)
    assert engine.report(NOTHING).restart_count == 1
    engine.prepare()
    assert not engine.report(NOTHING).HasField("next_start_time")


def test_the_wait_goes_on_where_the_last_agent_left_it(engine: Engine, clock: FakeClock, bundle: Bundle) -> None:
    for _ in range(4):
        live(engine, clock, ready_for_s=None)
    clock.advance(3.0)
    again = restored(clock, bundle)
    assert wait_s(again, clock) == 5.0
    assert (again.report(NOTHING).restart_count, again.report(NOTHING).is_crash_loop) == (3, True)
    assert again.report(NOTHING).last_exit.exit_code == 1


def test_an_orphan_does_not_become_younger_with_the_agent(engine: Engine, clock: FakeClock, bundle: Bundle) -> None:
    engine.mark_orphan(True)
    clock.advance(100.0)
    assert restored(clock, bundle).known().orphan_since_s == clock.monotonic() - 100.0
    engine.mark_orphan(False)
    assert restored(clock, bundle).known().orphan_since_s is None


def test_what_was_being_stopped_is_no_death(engine: Engine, clock: FakeClock, bundle: Bundle) -> None:
    engine.prepare()
    engine.hear(SERVING)
    engine.stop(30.0)
    assert restored(clock, bundle).state is State.STOPPED
    engine.die(Exit(signal=9), "")
    assert (engine.state, engine.report(NOTHING).HasField("last_exit")) == (State.DRAINING, False)
    engine.vanish()
    assert engine.known().state is State.STOPPED


def test_a_stop_that_an_agent_before_began_and_nobody_goes_on_with_hides_no_later_crash(
    engine: Engine, clock: FakeClock, bundle: Bundle
) -> None:
    engine.prepare()
    engine.hear(SERVING)
    engine.stop(30.0)
    adopting = restored(clock, bundle)
    adopting.hear(SERVING)
    assert restored(clock, bundle).state is State.FAILED, "it serves, so the stop is withdrawn"


def test_a_crash_after_a_stop_that_an_agent_before_began_keeps_its_wait(
    engine: Engine, clock: FakeClock, bundle: Bundle
) -> None:
    live(engine, clock, ready_for_s=None)
    engine.prepare()
    engine.stop(30.0)
    restored(clock, bundle).die(Exit(code=1), "")
    again = restored(clock, bundle)
    assert (again.state, wait_s(again, clock)) == (State.FAILED, 2.0)


def test_a_life_does_not_begin_with_the_stop_of_the_one_before(engine: Engine) -> None:
    engine.prepare()
    engine.die(Exit(code=1), "")
    engine.stop(30.0)
    assert not engine.prepare().is_stopping


def test_an_engine_that_is_silent_is_not_ready_meanwhile(engine: Engine, clock: FakeClock) -> None:
    engine.prepare()
    seen = []
    for status in (SERVING, SILENT, SERVING):
        clock.advance(100.0)
        engine.hear(status)
        seen.append((engine.state, clock.now() - from_timestamp(engine.report(NOTHING).state_time)))
    assert seen == [(State.READY, 0.0), (State.STARTING, 0.0), (State.READY, 0.0)]


@pytest.mark.parametrize(("ready_for_s", "delay_s"), [(9.0, 1.0), (11.0, 0.0)], ids=["early", "late"])
def test_the_time_of_silence_is_no_time_of_being_ready(
    engine: Engine, clock: FakeClock, ready_for_s: float, delay_s: float
) -> None:
    engine.prepare()
    engine.hear(SERVING)
    clock.advance(ready_for_s)
    engine.hear(SILENT)
    clock.advance(60.0)
    engine.die(Exit(signal=9), "the engine was ended")
    assert wait_s(engine, clock) == delay_s


def test_a_failed_replica_is_not_gone_before_its_remains_are(engine: Engine) -> None:
    engine.prepare()
    engine.die(Exit(code=1), "")
    assert (engine.state, engine.known().has_remains) == (State.FAILED, True)
    engine.stop(0.0)
    assert engine.known().state is State.DRAINING
    engine.vanish()
    assert engine.known().state is State.STOPPED


@pytest.mark.parametrize(
    ("exit_", "fault", "message"),
    [
        (Exit(code=37), "", "the engine ended with exit status 37"),
        (Exit(signal=11), "", "the engine was killed by SIGSEGV"),
        (Exit(signal=40), "", "the engine was killed by signal 40"),
        (Exit(), "", "the engine ended; how could not be learned"),
        (Exit(code=0), "it lies", "it lies"),
    ],
)
def test_a_death_is_told_in_a_sentence(engine: Engine, exit_: Exit, fault: str, message: str) -> None:
    engine.prepare()
    engine.die(exit_, fault)
    assert engine.report(NOTHING).message == message
