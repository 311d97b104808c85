"""Cuts lists into pages whose tokens hold the last thing that was shown, and whatever is sent by its size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from controlplane.store.cursors import Position, format_cursor, parse_cursor
from roundhouse.kit.fields import FieldCheck

DEFAULT_SIZE = 100
MAX_SIZE = 1000
# What one message holds at the most, unless a single thing is larger. In most languages gRPC takes 4 MiB and no more.
MESSAGE_BYTES = 1024 * 1024


class Sized(Protocol):
    """What goes into a message."""

    def ByteSize(self) -> int:
        """Returns how many bytes it takes there."""


T = TypeVar("T")
M = TypeVar("M", bound=Sized)
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """A part of a list."""

    shown: Sequence[M]
    next_token: str  # empty on the last page
    revision: int  # of the store where the list was begun: the same on every page


def page(
    things: Sequence[T],
    key: Callable[[T], str],
    show: Callable[[T], M],
    *,
    epoch: str,
    kind: str,
    size: int,
    token: str,
    revision: int = 0,
) -> Page[M]:
    """Returns what `show` makes of the things behind a page token, as many as are asked for and fit into one message.

    things: ordered by `key`. kind: which list this is; a token of another list or store is refused with RELIST.
    revision: where a list that begins now stands.
    Raises InvalidArgument if `size` is below 0; more than 1000 is taken as 1000.
    """
    check = FieldCheck()
    check.require(size >= 0, "page_size", f"{size} is below 0: use 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}")
    check.raise_if_any()
    begin = parse_cursor(epoch, kind, token) if token else Position(revision)
    rest = [each for each in things if key(each) > begin.key]
    shown = list(fitting(map(show, rest), min(size or DEFAULT_SIZE, MAX_SIZE)))
    has_more = len(rest) > len(shown)
    next_token = format_cursor(epoch, kind, begin.revision, key(rest[len(shown) - 1])) if has_more else ""
    return Page(shown, next_token, begin.revision)


def size_of(message: Sized) -> int:
    """Returns how many bytes a message takes."""
    return message.ByteSize()


def fitting(messages: Iterable[E], most: int, size: Callable[[Any], int] = size_of) -> Iterator[E]:
    """Yields the messages that go into one: at most `most`, and no more than MESSAGE_BYTES behind the first."""
    left_bytes = MESSAGE_BYTES
    for index, each in enumerate(islice(messages, most)):
        left_bytes -= size(each)
        if left_bytes < 0 and index > 0:
            return
        yield each
