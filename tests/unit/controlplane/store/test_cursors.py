"""Positions as clients hold them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store.cursors import Position, format_cursor, parse_cursor
from roundhouse.kit.errors import TooLong
from roundhouse.v1 import errors_pb2

EPOCH = "0d9f7a52-6bb0-4a38-8f4c-3f0d5a2c1b7e"


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cursor_comes_back_as_it_was_given(revision: int, key: str) -> None:
    assert parse_cursor(EPOCH, "nodes", format_cursor(EPOCH, "nodes", revision, key)) == Position(revision, key)


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_parsing_fail_otherwise_than_by_asking_to_list_again(text: str) -> None:
    with pytest.raises(TooLong, match="list again") as caught:
        parse_cursor(EPOCH, "nodes", text)
    assert caught.value.own_reason == errors_pb2.ERROR_REASON_RELIST


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param(format_cursor("another-epoch", "nodes", 7), id="of_another_store"),
        pytest.param(format_cursor(EPOCH, "deployments", 7), id="for_another_purpose"),
        pytest.param(format_cursor(EPOCH, "nodes", -7), id="of_a_negative_revision"),
        pytest.param(format_cursor(EPOCH, "nodes", 10**19), id="of_a_revision_beyond_int64"),
        pytest.param(format_cursor(EPOCH, "nodes", 7)[:-4], id="cut_off"),
        pytest.param("", id="empty"),
    ],
)
def test_a_cursor_that_means_nothing_here_asks_to_list_again(cursor: str) -> None:
    with pytest.raises(TooLong, match="list again"):
        parse_cursor(EPOCH, "nodes", cursor)
