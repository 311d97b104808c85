"""Threads that work beside the step thread: in order within a line, and no line waits for another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

Task = Callable[[], None]  # must not raise


class Line:
    """What is to be done for one output: one thing after the other, by one thread at a time."""

    __slots__ = ("_is_taken", "_tasks")

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._is_taken = threading.Lock()

    def add(self, task: Task) -> None:
        """Puts a task at the end. Some thread does it once the line has been handed to a crew."""
        self._tasks.append(task)

    def serve(self) -> None:
        """Does all that waits, unless another thread is at it; that one does the rest then."""
        # Looked at again afterwards: something may have been added just before the other thread left.
        while self._tasks and self._is_taken.acquire(blocking=False):
            try:
                while self._tasks:
                    self._tasks.popleft()()
            finally:
                self._is_taken.release()


class Crew:
    """A few threads. One that is held up by its line leaves all others to the next thread.

    So a line stands still only while every thread is held up by another one.
    """

    def __init__(self, name: str, thread_count: int) -> None:
        self._lines: deque[Line] = deque()  # that were handed over, and that no thread has taken
        self._calls: SimpleQueue[bool] = SimpleQueue()  # to look at the lines; False: and then to end
        # Daemons, because one that hangs must not keep the process from exiting.
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{index}", daemon=True) for index in range(thread_count)
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def hand_over(self, lines: Sequence[Line]) -> None:
        """Has a thread see to these lines."""
        self._lines.extend(lines)
        self._calls.put(True)

    @property
    def is_behind(self) -> bool:
        """Tells whether lines wait for a thread."""
        return bool(self._lines)

    def nudge(self) -> None:
        """Has one more thread see to the lines that wait: the one that took them may be held up by one of them."""
        if self._lines and self._calls.empty():
            self._calls.put(True)

    def close(self) -> None:
        """Lets each thread end when nothing is left to do."""
        for _ in self._threads:
            self._calls.put(False)

    def join(self) -> None:
        """Waits for the end of all threads."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while self._calls.get():
            self._serve()
        self._serve()  # what a thread that is held up has left

    def _serve(self) -> None:
        while self._lines:
            try:
                line = self._lines.popleft()
            except IndexError:  # another thread was quicker
                return
            line.serve()
