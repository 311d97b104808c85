"""Cuts lists into pages whose tokens hold the last thing that was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from controlplane.store.cursors import format_cursor, parse_cursor
from roundhouse.kit.fields import FieldCheck

DEFAULT_SIZE = 100
MAX_SIZE = 1000

T = TypeVar("T")


def page(
    things: Sequence[T], key: Callable[[T], str], *, epoch: str, kind: str, size: int, token: str
) -> tuple[Sequence[T], str]:
    """Returns the things behind a page token and the token of the next page, empty if there is none.

    things: ordered by `key`. kind: which list this is; a token of another list or store is refused with RELIST.
    Raises InvalidArgument if `size` is below 0; more than 1000 is taken as 1000.
    """
    check = FieldCheck()
    check.require(size >= 0, "page_size", f"{size} is below 0: use 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}")
    check.raise_if_any()
    after = parse_cursor(epoch, kind, token).key if token else ""
    rest = [each for each in things if key(each) > after]
    shown = rest[: min(size or DEFAULT_SIZE, MAX_SIZE)]
    has_more = len(rest) > len(shown)
    return shown, format_cursor(epoch, kind, 0, key(shown[-1])) if has_more else ""
