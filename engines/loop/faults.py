"""How far the loop goes on when forward passes fail: what a step may cost then, and when it looks at itself."""

from __future__ import annotations

from engines.batching.scheduler import Scheduler

_GOOD_STEPS = 32  # before a step may be twice as large again
_LOST_STEPS = 3  # in a row: perhaps it is not the requests, then


class Budget:
    """The tokens of a step: half as many after one that found too little memory, and more again by and by."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._limit: int | None = None
        self._full = 0  # what a step had that failed first; more than that is as much as ever
        self._good_count = 0
        self.shrink_count = 0

    @property
    def is_full(self) -> bool:
        """Tells whether nothing is held back."""
        return self._limit is None

    def shrink(self, token_count: int) -> None:
        """Says that a step of so many tokens found too little memory."""
        self._full = max(self._full, token_count)
        self._limit = max(1, token_count // 2)
        self._good_count = 0
        self.shrink_count += 1
        self._scheduler.limit(self._limit)

    def has_passed(self) -> None:
        """Says that a step was computed."""
        if self._limit is None:
            return
        self._good_count += 1
        if self._good_count == _GOOD_STEPS:
            self._good_count = 0
            self._limit *= 2
            if self._limit > self._full:
                self._limit, self._full = None, 0
            self._scheduler.limit(self._limit)


class Strikes:
    """Counts steps in a row of which no row was computed."""

    def __init__(self) -> None:
        self._count = 0

    def strike(self) -> None:
        """Says that a step has failed."""
        self._count += 1

    def clear(self) -> None:
        """Says that a row was computed after all, or is going to be."""
        self._count = 0

    @property
    def are_many(self) -> bool:
        """Tells whether there are so many that it may be nobody's fault."""
        return self._count >= _LOST_STEPS
