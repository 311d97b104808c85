"""Keeps requests from a replica that fails, and lets one at a time find out whether it still does. Pure.

Only faults of the engine or of the way to it count: what a caller did wrong says nothing about a replica.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

FIRST_OPEN_S, LONGEST_OPEN_S = 1.0, 30.0
OUTCOME_COUNT = 16  # the newest, among which failures are counted
LEAST_COUNT = 4  # of failures that may be due to requests: one caller's odd request stops nobody else's
FORGET_S = 60.0  # since the last failure
PROBE_S = 10.0  # a probe that nobody tells the outcome of is given up, and the next request is one


class Gate(enum.Enum):
    """Whether requests go to a replica."""

    CLOSED = enum.auto()  # the circuit is: they do
    OPEN = enum.auto()  # they go elsewhere, if they can
    HALF_OPEN = enum.auto()  # one may


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered of a replica that has failed.

    A certain failure opens it at once: an engine that does not take a request, or is lost with one, takes no other. One
    that may be due to the request opens it if it is the fourth among the newest outcomes, and at least every second of
    these is one: in a row, or at such a rate. It stays open for a second, and twice as long for each further failure
    among the newest outcomes, whether or not others between them succeeded.
    """

    outcomes: tuple[bool, ...]  # the newest last; whether it failed
    failed_s: float  # when it last did
    open_until_s: float | None = None  # None: closed
    probe_until_s: float = float("-inf")

    def gate(self, now_s: float) -> Gate:
        """Returns whether requests go there."""
        if self.open_until_s is None:
            return Gate.CLOSED
        return Gate.HALF_OPEN if now_s >= max(self.open_until_s, self.probe_until_s) else Gate.OPEN

    def probed(self, now_s: float) -> Breaker:
        """Returns it with a probe on its way: no other is sent before its outcome, or `PROBE_S`."""
        return replace(self, probe_until_s=now_s + PROBE_S)

    def released(self) -> Breaker:
        """Returns it with no probe on its way: one that has ended without an outcome, such as its client's leaving."""
        return replace(self, probe_until_s=float("-inf"))


def failed(breaker: Breaker | None, now_s: float, *, is_certain: bool = True) -> Breaker:
    """Returns what is remembered after a failure. None: nothing was. is_certain: it is not due to the request."""
    if breaker is None or now_s - breaker.failed_s > FORGET_S:
        breaker = Breaker((), now_s)
    if breaker.open_until_s is not None and now_s < breaker.open_until_s:
        return breaker  # it was sent before: many that ended at one moment are one failure
    outcomes = (*breaker.outcomes, True)[-OUTCOME_COUNT:]
    count = sum(outcomes)
    was_closed = breaker.open_until_s is None
    if was_closed and not is_certain and (count < LEAST_COUNT or 2 * count < len(outcomes)):
        return Breaker(outcomes, now_s)
    open_s = min(LONGEST_OPEN_S, FIRST_OPEN_S * 2 ** (count - 1))
    return Breaker(outcomes, now_s, now_s + open_s)


def succeeded(breaker: Breaker, now_s: float) -> Breaker | None:
    """Returns what is remembered after a success; None if that is nothing worth it."""
    if breaker.open_until_s is not None and now_s < breaker.open_until_s:
        return breaker  # it was sent before: an engine that takes no more may well finish what it has
    outcomes = (*breaker.outcomes, False)[-OUTCOME_COUNT:]
    return Breaker(outcomes, breaker.failed_s) if any(outcomes) else None
