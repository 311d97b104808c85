"""Keeps an engine full while its requests are cancelled, one after the other."""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import dataclass

from benchmarks.support.engine import GREEDY, Engine
from benchmarks.support.models import CONTEXT
from engines.model import Cause, End, Event, Tokens, Work

PROMPT_COUNT = 64
LONGEST_S = 60.0  # without what must come
_LONGEST_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One cancel."""

    at_s: float  # when it was asked for, by `time.perf_counter`
    until_end_s: float  # from the call to the `End`, which comes when the blocks are free
    until_free_s: float  # as the `End` says
    steps_after: int  # that still computed it


class Churn:
    """Requests that go on until they are cancelled."""

    def __init__(self, engine: Engine, source: random.Random) -> None:
        self._engine = engine
        self._source = source
        self._count = 0
        self._running: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[tuple[float, End]] = queue.SimpleQueue()

    def add(self) -> None:
        """Adds a request, and waits for its first token."""
        self._count += 1
        name = str(self._count)
        prompt = tuple(self._source.randrange(self._engine.loaded.vocabulary_size) for _ in range(PROMPT_COUNT))
        started = threading.Event()

        def sink(event: Event) -> None:
            if isinstance(event, Tokens):
                started.set()
            elif isinstance(event, End):
                self._ends.put((time.perf_counter(), event))

        self._engine.steps.submit([Work(name, prompt, CONTEXT - PROMPT_COUNT, GREEDY)], sink)
        assert started.wait(LONGEST_S), "no token came"
        self._running.put(name)

    def cancel(self) -> Cancelled:
        """Cancels the oldest request."""
        name, begin_s = self._running.get_nowait(), time.perf_counter()
        self._engine.steps.cancel(name, Cause.CLIENT)
        end_s, end = self._ends.get(timeout=LONGEST_S)
        release = end.release
        return Cancelled(begin_s, end_s - begin_s, release.cancel_to_release_s, release.steps_after)

    def run(self, count: int) -> list[Cancelled]:
        """Cancels as many, each at no special time of a step, and puts another one in its place."""
        found = []
        for _ in range(count):
            threading.Event().wait(self._source.uniform(0.0, _LONGEST_PAUSE_S))
            found.append(self.cancel())
            self.add()
        return found
