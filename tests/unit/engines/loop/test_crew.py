"""The threads beside the step thread."""

import threading
from collections.abc import Iterable, Iterator
from functools import partial

from engines.loop.crew import Crew, Line
from tests.support.paged_runner import PATIENCE_S


def test_what_is_in_a_line_is_done_in_order_though_many_threads_are_at_it() -> None:
    crew = Crew("test", 4)
    crew.start()
    done: list[list[int]] = [[] for _ in range(20)]
    lines = [Line() for _ in done]
    for number in range(200):
        for line, mine in zip(lines, done, strict=True):
            line.add(partial(mine.append, number))
        crew.hand_over(list(lines))
    crew.close()
    crew.join()
    assert done == [list(range(200))] * 20


def test_a_line_that_is_held_up_leaves_the_others_to_the_next_thread() -> None:
    crew = Crew("test", 2)
    crew.start()
    is_held, go, is_done = threading.Event(), threading.Event(), threading.Event()
    held, other = Line(), Line()

    def hold() -> None:
        is_held.set()
        assert go.wait(PATIENCE_S)

    held.add(hold)
    other.add(is_done.set)
    crew.hand_over([held, other])
    assert is_held.wait(PATIENCE_S)
    assert crew.is_behind
    crew.nudge()
    assert is_done.wait(PATIENCE_S)
    go.set()
    crew.close()
    crew.join()
    assert not crew.is_behind


def test_the_last_thread_does_what_is_left_when_the_crew_is_closed() -> None:
    crew = Crew("test", 2)
    done: list[str] = []
    first, second = Line(), Line()
    first.add(partial(done.append, "first"))
    second.add(partial(done.append, "second"))
    crew.hand_over([first, second])
    crew.close()
    crew.start()
    crew.join()
    assert sorted(done) == ["first", "second"]


class SlowlyRead(list[Line]):
    """Lines that a thread of a crew needs long to take over."""

    def __init__(self, lines: Iterable[Line], is_read: threading.Event, go: threading.Event) -> None:
        super().__init__(lines)
        self._reads = is_read.set
        self._waits = go.wait
        self._maker = threading.current_thread()

    def __iter__(self) -> Iterator[Line]:
        if threading.current_thread() is not self._maker:
            self._reads()
            assert self._waits(PATIENCE_S)
        return super().__iter__()


def test_lines_that_were_handed_over_wait_however_far_a_thread_has_come_with_taking_them() -> None:
    crew = Crew("test", 2)
    crew.start()
    has_begun, go, is_done = threading.Event(), threading.Event(), threading.Event()
    held, other = Line(), Line()

    def hold() -> None:
        has_begun.set()
        assert go.wait(PATIENCE_S)

    held.add(hold)
    other.add(is_done.set)
    crew.hand_over(SlowlyRead([held, other], has_begun, go))
    assert has_begun.wait(PATIENCE_S)
    assert crew.is_behind
    go.set()
    assert is_done.wait(PATIENCE_S)
    crew.close()
    crew.join()
