"""Pages and messages: cut by count and by size, and nothing is left out."""

from __future__ import annotations

import pytest

from controlplane.api.paging import MESSAGE_BYTES, Page, fitting, page
from roundhouse.v1.deployment_pb2 import Deployment


def large(name: str, share: float) -> Deployment:
    """A deployment that takes so much of a message."""
    return Deployment(name=name, annotations={"a": "x" * int(share * MESSAGE_BYTES)})


SHARES: dict[str, tuple[list[float], int, int]] = {
    "none": ([], 3, 0),
    "few": ([0.1, 0.1], 3, 2),
    "as many as are asked for": ([0.1, 0.1, 0.1, 0.1], 3, 3),
    "as many as fit": ([0.4, 0.4, 0.4], 3, 2),
    "one that is too large for any": ([1.5, 0.1], 3, 1),
    "one that is too large behind another": ([0.1, 1.5], 3, 1),
}


@pytest.mark.parametrize(("shares", "most", "count"), SHARES.values(), ids=SHARES)
def test_what_fits_goes_into_one_message(shares: list[float], most: int, count: int) -> None:
    assert len(list(fitting([large("d", each) for each in shares], most))) == count


def page_of(things: list[Deployment], token: str, revision: int = 7) -> Page[Deployment]:
    return page(
        things,
        lambda each: each.name,
        lambda each: each,
        epoch="e",
        kind="k",
        size=10,
        token=token,
        revision=revision,
    )


def test_pages_that_are_cut_by_size_leave_nothing_out() -> None:
    things = [large(name, 0.4) for name in "abcde"]
    first = page_of(things, "")
    second = page_of(things, first.next_token)
    third = page_of(things, second.next_token)
    assert [[each.name for each in part.shown] for part in (first, second, third)] == [["a", "b"], ["c", "d"], ["e"]]
    assert third.next_token == ""


def test_every_page_tells_where_the_list_was_begun() -> None:
    things = [large(name, 0.6) for name in "abc"]
    first = page_of(things, "", revision=7)
    second = page_of(things, first.next_token, revision=8)
    third = page_of(things, second.next_token, revision=9)
    assert [first.revision, second.revision, third.revision] == [7, 7, 7]


def test_nothing_is_made_ready_that_is_not_shown() -> None:
    asked: list[str] = []

    def show(name: str) -> Deployment:
        asked.append(name)
        return Deployment(name=name)

    part = page("abcdef", str, show, epoch="e", kind="k", size=2, token="")
    assert ([each.name for each in part.shown], asked) == (["a", "b"], ["a", "b"])
