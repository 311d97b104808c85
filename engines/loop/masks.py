"""Keeps grammars beside the step thread: they take tokens and say what may come next, and no row waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from engines.loop.crew import Crew, Line
from engines.loop.live import Live

_THREADS = 4  # a grammar that takes long holds up one of them


class Masks:
    """Belongs to the step thread."""

    def __init__(self, on_mask: Callable[[], None]) -> None:
        """`on_mask` is called, by another thread, whenever a mask has come."""
        self._on_mask = on_mask
        self._crew = Crew("masks", _THREADS)
        self._is_started = False  # with the first grammar: most engines never see one
        self._due: list[Line] = []
        self._has_come = threading.Event()

    def ask(self, live: Live, tokens: Sequence[int]) -> None:
        """Gives a constraint the next output ids, and asks it what may come behind them: `live.mask`, when it comes."""
        live.mask = None
        live.grammar.add(partial(self._answer, live, tokens))
        self._due.append(live.grammar)

    def hand_out(self) -> None:
        """Lets the threads begin with what was asked since the last time."""
        if self._due:
            if not self._is_started:
                self._is_started = True
                self._crew.start()
            self._crew.hand_over(self._due)
            self._due = []
        self._crew.nudge()

    def settle(self, lives: Sequence[Live], within_s: float) -> None:
        """Waits until the masks of all these have come, at most so long."""
        until_s = time.monotonic() + within_s
        while True:
            self._has_come.clear()
            if all(live.mask is not None for live in lives):
                return
            if not self._has_come.wait(max(0.0, until_s - time.monotonic())):
                return

    def close(self) -> None:
        """Lets the threads end; one that hangs is not waited for."""
        if self._is_started:
            self._crew.close()

    @property
    def is_behind(self) -> bool:
        """Tells whether constraints wait for a thread."""
        return self._crew.is_behind

    def _answer(self, live: Live, tokens: Sequence[int]) -> None:
        assert live.constraint is not None
        try:
            if not live.is_over:
                for token in tokens:
                    live.constraint.accept(token)
                live.mask = live.constraint.mask()
        except Exception as error:  # noqa: BLE001 - the request is told
            live.mask = error
        self._has_come.set()
        self._on_mask()
