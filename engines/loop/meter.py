"""Counts steps and what they gave, so that a thread that does not step can see whether steps go on."""

from __future__ import annotations

import threading
from collections import deque

_WINDOW_S = 1.0
_GRAIN_S = 0.02  # steps closer together than this are kept as one span, so a window holds some fifty spans


class _Span:
    __slots__ = ("begin_s", "busy_s", "end_s")

    def __init__(self, begin_s: float) -> None:
        self.begin_s = begin_s
        self.end_s = begin_s
        self.busy_s = 0.0

    def busy_since(self, moment_s: float) -> float:
        length_s = self.end_s - self.begin_s
        if length_s <= 0:
            return 0.0
        return self.busy_s * min(1.0, max(0.0, self.end_s - moment_s) / length_s)


class Meter:
    """Written by the step thread, read by any; neither waits for a step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: deque[_Span] = deque()
        self._under_way_count = 0
        self._begin_s: float | None = None  # of the step that runs, at the earliest the end of the one before
        self._last_end_s: float | None = None
        self._step_count = 0
        self.token_count = 0  # output tokens that were given
        self.prompt_token_count = 0  # of the sequences that have joined
        self.cached_token_count = 0  # of these, found in the cache
        self.drafted_count = 0  # tokens that were guessed
        self.accepted_count = 0  # of these, right

    @property
    def step_count(self) -> int:
        """Steps that ended."""
        return self._step_count

    def begin(self, now_s: float) -> None:
        """Says that a step begins; the one before it may not have ended."""
        with self._lock:
            self._under_way_count += 1
            if self._begin_s is None:
                self._begin_s = now_s

    def end(self, now_s: float) -> None:
        """Says that the first of the steps under way ended."""
        with self._lock:
            assert self._begin_s is not None
            if not self._spans or self._begin_s - self._spans[-1].begin_s > _GRAIN_S:
                self._spans.append(_Span(self._begin_s))
            self._spans[-1].end_s = now_s
            self._spans[-1].busy_s += now_s - self._begin_s
            while self._spans[0].end_s < now_s - _WINDOW_S:
                self._spans.popleft()
            self._under_way_count -= 1
            self._begin_s = now_s if self._under_way_count else None
            self._last_end_s = now_s
            self._step_count += 1

    def last_step_age_s(self, now_s: float) -> float | None:
        """Returns how long ago the last step ended, or began if one is running; None before the first."""
        with self._lock:
            moment_s = self._begin_s if self._begin_s is not None else self._last_end_s
        return None if moment_s is None else max(0.0, now_s - moment_s)

    def busy_fraction(self, now_s: float) -> float:
        """Returns the share of the last second that was spent in steps."""
        since_s = now_s - _WINDOW_S
        with self._lock:
            busy_s = sum(span.busy_since(since_s) for span in self._spans)
            if self._begin_s is not None:
                busy_s += now_s - max(since_s, self._begin_s)
        return min(1.0, max(0.0, busy_s / _WINDOW_S))
