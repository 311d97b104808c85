"""Decides what to do when a stream breaks off, and how long to try. Knows no wire."""

from __future__ import annotations

import random
import time
from enum import Enum, auto

from roundhouse.client.connection import NotConnected
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import DeadlineExceeded, RoundhouseError, Unreachable
from roundhouse.v1 import errors_pb2

PATIENCE_S = 60.0  # without an answer, where no deadline says how long
MAX_FAILURES = 50  # without anything new, each behind an answer: more than a minute as well
MAX_REFUSALS = 6  # of the same kind one after another: over some seconds, by the backoff
_BACKOFF = Backoff(first_s=0.05, cap_s=2.0, jitter=0.5)

_GONE = (errors_pb2.ERROR_REASON_REQUEST_NOT_FOUND, errors_pb2.ERROR_REASON_REQUEST_LOST)
# Another engine may be picked next time, and a queue moves on.
_TRY_ANOTHER = (errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS, errors_pb2.ERROR_REASON_QUEUE_FULL)
# Who says so goes down, or gave the request up for another to go on; with `RetryInfo` it only refuses.
_WENT_DOWN = (errors_pb2.ERROR_REASON_INTERRUPTED, errors_pb2.ERROR_REASON_HANDED_OVER)


class Step(Enum):
    """How to come to the stream of a request."""

    SEND = auto()  # for the first time
    RESEND = auto()
    ATTACH = auto()


def next_step(
    step: Step,
    error: RoundhouseError,
    *,
    is_first: bool,
    has_others: bool,
    is_reached: bool,
    has_started: bool,
    may_send: bool,
) -> Step:
    """Returns the step after one that has ended in an error; raises the error if it is the last word.

    is_first: there was no call before that somebody served. has_others: there are addresses that were not called yet.
    is_reached: somebody answered at the address, in this call or before. may_send: the request is ours, and may be sent
    again.
    """
    reason = error.own_reason
    if step is Step.ATTACH and reason in _GONE and may_send:
        return Step.RESEND
    # Before anything was seen the words are the same, and the engine joins those itself: so it is another's request.
    if step is Step.RESEND and reason == errors_pb2.ERROR_REASON_REQUEST_EXISTS and has_started:
        return Step.ATTACH
    if step is Step.RESEND and reason in _TRY_ANOTHER:
        return Step.RESEND
    if is_broken(error) and is_reached:
        return Step.ATTACH if has_started or not may_send else Step.RESEND
    is_verdict = is_first and not (has_others and is_not_up(error))
    is_verdict = is_verdict or reason == errors_pb2.ERROR_REASON_ENGINE_LOST
    if isinstance(error, Unreachable) and not is_verdict:
        return step
    raise error


def is_broken(error: RoundhouseError) -> bool:
    """Tells whether the way to the request is gone, or who stood there; anything else is said of the request itself."""
    went_down = error.own_reason in _WENT_DOWN and error.retry_after_s is None
    return isinstance(error, NotConnected) or (isinstance(error, Unreachable) and went_down)


def is_not_up(error: RoundhouseError) -> bool:
    """Tells whether a server says that it cannot serve anybody now, as one may that has just been started."""
    return isinstance(error, Unreachable) and not isinstance(error, NotConnected) and error.own_reason in _WENT_DOWN


class Patience:
    """How long one request is tried for: until its deadline, else as long as there are answers now and then."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._began_s = time.monotonic()
        self._broke_s: float | None = None
        self._failures = self._refusals = 0
        self._behind_answers = 0  # of the failures

    def begin(self) -> None:
        """Says that the request is sent now."""
        self._began_s = time.monotonic()

    def answered(self) -> None:
        """Says that somebody tells of the request, even if nothing new."""
        self._broke_s = None

    def progress(self) -> None:
        """Says that something new came."""
        self._failures = self._refusals = self._behind_answers = 0

    @property
    def elapsed_s(self) -> float:
        """Time since the request was sent."""
        return time.monotonic() - self._began_s

    def left_s(self) -> float | None:
        """Returns the time until the deadline; None if there is none."""
        return None if self.timeout_s is None else max(0.0, self.timeout_s - self.elapsed_s)

    def pause_s(self, error: RoundhouseError) -> float:
        """Returns how long to wait after an error; raises it, or DeadlineExceeded, if that would be too long."""
        now_s = time.monotonic()
        if self._broke_s is None:
            self._broke_s = now_s
            self._behind_answers += 1
        delay_s = max(_BACKOFF.delay_s(self._failures, random.random()), error.retry_after_s or 0.0)
        self._failures += 1
        self._refusals = 0 if isinstance(error, Unreachable) else self._refusals + 1
        left_s = self.left_s()
        if left_s == 0:
            late = f"the deadline passed while the request could not be reached ({error.message}): allow more time"
            raise DeadlineExceeded(late) from error
        is_late = left_s is None and now_s + delay_s - self._broke_s > PATIENCE_S
        if is_late or self._behind_answers > MAX_FAILURES or self._refusals > MAX_REFUSALS:
            raise error
        return delay_s if left_s is None else min(delay_s, left_s)
