"""What crosses from the step thread to the event loop, and what is kept for whom."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from engines.model import End, FinishReason, Release, Tokens
from engines.service.run import Run
from engines.service.threads import in_daemon_thread
from engines.service.wakeups import Wakeups

END = End(FinishReason.LENGTH, 3, Release(0, 1, 1, 0, 0.0))


def _run(ends: list[End | None]) -> Run:
    loop = asyncio.get_running_loop()
    return Run("local/mine", "mine", 1, Wakeups(loop.call_soon_threadsafe), lambda run, end: ends.append(end))


async def _on_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def test_a_reader_gets_all_there_is_in_order() -> None:
    run = _run([])
    tokens = [Tokens(position, (position,), "x") for position in range(3)]

    def step() -> None:
        for each in tokens:
            run.sink(each)

    await _on_thread(step)
    assert await run.take() == tokens
    await _on_thread(lambda: run.sink(END))
    assert await run.take() == [END]
    assert run.ended.result() is END


async def test_the_end_is_known_before_anybody_reads_it() -> None:
    ends: list[End | None] = []
    run = _run(ends)
    await _on_thread(lambda: run.sink(END))
    await run.ended
    assert ends == [END]
    assert await run.take() == [END]


async def test_nothing_is_kept_for_a_reader_that_has_left() -> None:
    ends: list[End | None] = []
    run = _run(ends)
    run.leave()
    await _on_thread(lambda: run.sink(Tokens(0, (1,), "x")))
    await _on_thread(lambda: run.sink(END))
    await run.ended
    assert ends == [END]
    assert run._to_read == []


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
