"""Runs work in a few threads, of which nobody has all: whoever asks for much waits behind its own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class _Line:
    """What was asked for on one account."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[Future[Any], Callable[[], Any]] = OrderedDict()
        self.running_count = 0


class FairThreads:
    """A pool of threads with a line for each key. The next to begin is of the key that has the fewest threads now."""

    def __init__(self, name: str, *, count: int, most_each: int) -> None:
        """most_each: threads that one key may have at a time; if less than `count`, one alone leaves some to others."""
        assert 0 < most_each <= count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._most_each = most_each
        self._lock = threading.Lock()
        self._free_count = count
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()  # of equals, whose last turn ended first goes first

    def submit(self, key: Hashable, work: Callable[[], T]) -> Future[T]:
        """Has `work` done when it is the turn of `key`. What is cancelled before that leaves the line at once."""
        future: Future[T] = Future()
        with self._lock:
            line = self._lines.setdefault(key, _Line())
            line.waiting[future] = work
            self._start()
        future.add_done_callback(partial(self._leave, key))
        return future

    def _start(self) -> None:
        """Lets those begin whose turn it is. The lock is held."""
        while self._free_count and (key := self._next()) is not None:
            line = self._lines[key]
            future, work = line.waiting.popitem(last=False)
            line.running_count += 1
            self._free_count -= 1
            self._threads.submit(self._run, key, future, work)

    def _next(self) -> Hashable | None:
        may = (key for key, line in self._lines.items() if line.waiting and line.running_count < self._most_each)
        return min(may, key=lambda key: self._lines[key].running_count, default=None)

    def _run(self, key: Hashable, future: Future[T], work: Callable[[], T]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whoever asked is told
                future.set_exception(error)
            else:
                future.set_result(result)
        with self._lock:
            self._free_count += 1
            self._lines[key].running_count -= 1
            self._lines.move_to_end(key)
            self._drop_if_empty(key)
            self._start()

    def _leave(self, key: Hashable, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                if key in self._lines and self._lines[key].waiting.pop(future, None) is not None:
                    self._drop_if_empty(key)

    def _drop_if_empty(self, key: Hashable) -> None:
        if not (self._lines[key].waiting or self._lines[key].running_count):
            del self._lines[key]
