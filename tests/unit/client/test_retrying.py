"""How long one request is tried for."""

from __future__ import annotations

import pytest

from roundhouse.client import NotConnected
from roundhouse.client.retrying import MAX_FAILURES, Patience

GONE = NotConnected("nobody answers")


def test_until_its_deadline_a_request_is_tried_though_nobody_answers() -> None:
    patience = Patience(600)
    assert all(patience.pause_s(GONE) > 0 for _ in range(10 * MAX_FAILURES))


@pytest.mark.parametrize("timeout_s", [600, None], ids=["with a deadline", "without one"])
def test_answers_that_tell_nothing_new_end_the_patience(timeout_s: float | None) -> None:
    patience = Patience(timeout_s)
    for _ in range(MAX_FAILURES):
        patience.answered()
        patience.pause_s(GONE)
    patience.answered()
    with pytest.raises(NotConnected):
        patience.pause_s(GONE)


def test_something_new_gives_all_the_patience_back() -> None:
    patience = Patience(600)
    for _ in range(2 * MAX_FAILURES):
        patience.answered()
        patience.progress()
        patience.pause_s(GONE)
