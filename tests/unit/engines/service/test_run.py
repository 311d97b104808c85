"""What crosses from the step thread to the event loop, and what is kept for whom."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from engines.model import Cause, End, FinishReason, Progress, Release, Sampling, Sink, Tokens, Work
from engines.service.arrival import Arrival
from engines.service.log import Asked, Log
from engines.service.outcome import Outcome
from engines.service.run import Run
from engines.service.threads import in_daemon_thread
from engines.service.wakeups import Wakeups

END = End(FinishReason.LENGTH, 3, Release(0, 1, 1, 0, 0.0))
WORK = Work("local/mine", (1,), 3, Sampling(0.0, 1.0, 0, 0))


class NoSteps:
    """A step loop that computes nothing, and remembers what it was told."""

    def __init__(self) -> None:
        self.cancelled: list[Cause] = []

    def submit(self, works: Sequence[Work], sink: Sink) -> None:
        assert works

    def cancel(self, key: str, cause: Cause) -> None:
        self.cancelled.append(cause)

    def has_joined(self, key: str) -> bool:
        raise NotImplementedError

    def progress(self) -> Progress:
        raise NotImplementedError


def started(ends: list[Outcome | None], choice_count: int = 1, steps: NoSteps | None = None) -> Run:
    loop = asyncio.get_running_loop()
    run = Run(
        Arrival("local", "mine", choice_count=choice_count),
        Wakeups(loop.call_soon_threadsafe),
        lambda run, outcome: ends.append(outcome),
    )
    works = [replace(WORK, choice=choice) for choice in range(choice_count)]
    run.start(steps or NoSteps(), works, Log(Asked(WORK.prompt, choice_count, choice_count)))
    return run


async def _on_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def test_a_reader_gets_all_there_is_in_order() -> None:
    run = started([])
    reader = await run.open(None)
    tokens = [Tokens(position, (position,), ("x",)) for position in range(3)]

    def step() -> None:
        for each in tokens:
            run.sink(each)

    await _on_thread(step)
    [event] = await run.read(reader)
    assert (list(event.delta.token_ids), event.delta.text, event.delta.first_position) == ([0, 1, 2], "xxx", 0)
    await _on_thread(lambda: run.sink(END))
    assert [event.WhichOneof("event") for event in await run.read(reader)] == ["finished", "usage"]
    assert await run.read(reader) == []


async def test_the_end_is_known_before_anybody_reads_it() -> None:
    ends: list[Outcome | None] = []
    run = started(ends)
    reader = await run.open(None)
    await _on_thread(lambda: run.sink(END))
    await run.ended
    assert ends == [Outcome((END,))]
    assert len(await run.read(reader)) == 2


async def test_a_run_ends_with_the_last_of_its_choices() -> None:
    ends: list[Outcome | None] = []
    run = started(ends, choice_count=3)
    reader = await run.open(None)
    for choice in (2, 0):
        await _on_thread(partial(run.sink, replace(END, choice=choice)))
        [event] = await run.read(reader)
        assert event.finished.choice == choice
        assert not run.ended.done()
    await _on_thread(lambda: run.sink(replace(END, choice=1)))
    outcome = await run.ended
    assert outcome is not None
    assert [end.choice for end in outcome.ends] == [2, 0, 1]
    assert outcome.output_token_count == 9


async def test_the_choices_beside_one_that_fails_are_cancelled() -> None:
    steps = NoSteps()
    run = started([], choice_count=2, steps=steps)
    reader = await run.open(None)
    await _on_thread(lambda: run.sink(replace(END, reason=FinishReason.FAILED, error=ValueError("no"))))
    await _on_thread(lambda: run.sink(replace(END, reason=FinishReason.CANCELLED, cause=Cause.SIBLING, choice=1)))
    outcome = await run.ended
    assert outcome is not None
    assert (outcome.reason, outcome.cause) == (FinishReason.FAILED, None)
    assert steps.cancelled == [Cause.SIBLING]
    assert await run.read(reader) == []


async def test_an_output_that_cannot_be_told_is_cancelled_and_its_reader_told() -> None:
    ends: list[Outcome | None] = []
    steps = NoSteps()
    run = started(ends, steps=steps)
    reader = await run.open(None)
    await _on_thread(lambda: run.sink(Tokens(0, (1,), ("\ud800",))))  # no text that a message could hold
    with pytest.raises(RuntimeError, match="cannot be told"):
        await run.read(reader)
    assert steps.cancelled == [Cause.SIBLING]
    await _on_thread(lambda: run.sink(END))
    await run.ended
    assert ends == [Outcome((END,))]


async def test_several_read_the_same_each_at_its_own_pace() -> None:
    run = started([])
    first, second = await run.open(None), await run.open({0: 1})
    await _on_thread(lambda: run.sink(Tokens(0, (1,), ("x",))))
    [event] = await run.read(first)
    assert event.delta.text == "x"
    reading = asyncio.ensure_future(run.read(first))
    await _on_thread(lambda: run.sink(Tokens(1, (2,), ("y",))))
    for [event] in (await reading, await run.read(second)):
        assert (event.delta.first_position, event.delta.text) == (1, "y")
    await _on_thread(lambda: run.sink(END))
    for reader in (first, second):
        assert [event.WhichOneof("event") for event in await run.read(reader)] == ["finished", "usage"]
        assert await run.read(reader) == []


def test_a_step_of_many_sequences_wakes_the_event_loop_once() -> None:
    woken: list[Callable[[], None]] = []
    called: list[str] = []
    wakeups = Wakeups(woken.append)
    for step in ("first", "second"):
        for _ in range(3):
            wakeups.ring(partial(called.append, step))
        [deliver] = woken
        woken.clear()
        deliver()
    assert called == ["first"] * 3 + ["second"] * 3


def test_a_call_that_fails_does_not_take_the_others_along() -> None:
    woken: list[Callable[[], None]] = []
    called: list[str] = []
    wakeups = Wakeups(woken.append)
    wakeups.ring(lambda: called.remove("not there"))
    wakeups.ring(partial(called.append, "after"))
    woken[0]()
    assert called == ["after"]


def test_a_step_may_end_after_the_event_loop_has_closed() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    Wakeups(loop.call_soon_threadsafe).ring(lambda: None)


async def test_what_a_thread_raises_is_raised_to_who_waits() -> None:
    def fail() -> int:
        raise ValueError("broken")

    outcomes = await asyncio.gather(
        in_daemon_thread(lambda: 7, "seven"), in_daemon_thread(fail, "fail"), return_exceptions=True
    )
    assert outcomes[0] == 7
    assert isinstance(outcomes[1], ValueError)


async def test_a_thread_whose_waiter_has_gone_ends_in_silence() -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait()
        has_ended.set()

    waiting = asyncio.ensure_future(in_daemon_thread(work, "work"))
    await asyncio.sleep(0)
    waiting.cancel()
    may_end.set()
    assert await asyncio.to_thread(has_ended.wait, 30)
