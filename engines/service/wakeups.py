"""Carries calls from the step thread to the event loop: one wake-up for all that one step rings."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

Call = Callable[[], None]


class Wakeups:
    """Calls on the event loop what was rung for. A wake-up is a system call; a step of many sequences makes one."""

    def __init__(self, call_soon_threadsafe: Callable[[Call], object]) -> None:
        """`call_soon_threadsafe` is that of the event loop."""
        self._wake = call_soon_threadsafe
        self._lock = threading.Lock()
        self._rung: list[Call] = []

    def ring(self, call: Call) -> None:
        """Has `call` called on the event loop. From any thread; never blocks for long."""
        with self._lock:
            self._rung.append(call)
            if len(self._rung) > 1:
                return  # the wake-up under way takes this one along
        with contextlib.suppress(RuntimeError):  # the event loop has closed: the process ends and nobody listens
            self._wake(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            rung, self._rung = self._rung, []
        for call in rung:
            try:
                call()
            except Exception:  # the others must not be lost with it
                log.exception("wake-up failed")
