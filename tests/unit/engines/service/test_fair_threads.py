"""Threads of which nobody has all."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

import pytest

from engines.service.fair_threads import FairThreads
from tests.support.scripted_model import PATIENCE_S


class Work:
    """Says that it has begun, and goes on when it may."""

    def __init__(self, *, is_held: bool = True) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        if not is_held:
            self.may_end.set()

    def __call__(self) -> Work:
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        return self


def done(*futures: Future[Work]) -> None:
    """Waits until all are done; raises what one of them raised."""
    for each in futures:
        each.result(PATIENCE_S)


def test_one_who_asks_for_much_leaves_a_thread_to_others_and_gets_on() -> None:
    threads = FairThreads("test", count=3, most_each=2)
    many = [Work() for _ in range(5)]
    asked = [threads.submit("greedy", each) for each in many]
    for each in many[:2]:
        assert each.begun.wait(PATIENCE_S)
    for key in "abc":
        done(threads.submit(key, Work(is_held=False)))
    assert not any(each.begun.is_set() for each in many[2:])
    for each in many:
        each.may_end.set()
    done(*asked)


def test_each_has_its_turn_in_the_order_in_which_it_asked() -> None:
    threads = FairThreads("test", count=1, most_each=1)
    order: list[str] = []
    first = Work()
    asked = [threads.submit("a", first)]
    assert first.begun.wait(PATIENCE_S)
    for name in ("a1", "a2", "b1", "b2", "c1", "a3"):
        threads.submit(name[0], lambda name=name: order.append(name))  # type: ignore[misc]
    last = threads.submit("c", Work(is_held=False))
    first.may_end.set()
    done(*asked, last)
    done(threads.submit("a", Work(is_held=False)))
    assert order == ["b1", "c1", "a1", "b2", "a2", "a3"]


def test_the_next_thread_goes_to_whoever_has_the_fewest() -> None:
    threads = FairThreads("test", count=2, most_each=2)
    running = [Work(), Work()]
    asked = [threads.submit("greedy", each) for each in running]
    for each in running:
        assert each.begun.wait(PATIENCE_S)
    more, other = Work(), Work()
    asked += [threads.submit("greedy", more), threads.submit("other", other)]
    running[0].may_end.set()
    assert other.begun.wait(PATIENCE_S)
    assert not more.begun.is_set()
    for each in (*running, more, other):
        each.may_end.set()
    done(*asked)


def test_what_is_cancelled_before_its_turn_is_not_done_and_its_line_goes_on() -> None:
    threads = FairThreads("test", count=1, most_each=1)
    first, left, after = Work(), Work(), Work(is_held=False)
    running, leaving, staying = (threads.submit("a", each) for each in (first, left, after))
    assert first.begun.wait(PATIENCE_S)
    alone = threads.submit("b", Work())
    assert leaving.cancel()
    assert alone.cancel()
    assert not running.cancel()
    first.may_end.set()
    done(running, staying)
    assert not left.begun.is_set()


def test_work_that_fails_tells_whoever_asked_and_frees_its_thread() -> None:
    def fail() -> None:
        raise ValueError("no")

    threads = FairThreads("test", count=1, most_each=1)
    failing, fine = threads.submit("a", fail), threads.submit("b", Work(is_held=False))
    with pytest.raises(ValueError, match="no"):
        failing.result(PATIENCE_S)
    done(fine)


def test_many_threads_may_ask_and_cancel_at_a_time() -> None:
    threads = FairThreads("test", count=4, most_each=3)
    kept: list[Future[int]] = []

    def ask(number: int) -> None:
        for turn in range(200):
            future = threads.submit(number % 3, lambda: turn)  # noqa: B023 - whichever turn it is
            if not (turn % 2 and future.cancel()):
                kept.append(future)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert not wait(kept, PATIENCE_S).not_done
    assert threads.submit("last", lambda: 7).result(PATIENCE_S) == 7
