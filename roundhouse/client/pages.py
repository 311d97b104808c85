"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

_UNREACHABLE = "unreachable"  # the field of those lists that several are asked for


class Page(Protocol):
    """One page of a list."""

    next_page_token: str


AnyPage = TypeVar("AnyPage", bound=Page)


async def all_pages(fetch: Callable[[str], Awaitable[AnyPage]], items: str) -> AnyPage:
    """Returns the first page with the `items` of all others; `fetch` takes the token of a page, empty for the first.

    Whoever could not be asked for one of them is named once in `unreachable`, where pages have that.
    """
    whole = await fetch("")
    token, whole.next_page_token = whole.next_page_token, ""
    while token:
        page = await fetch(token)
        getattr(whole, items).extend(getattr(page, items))
        if hasattr(whole, _UNREACHABLE):
            named = getattr(whole, _UNREACHABLE)
            named.extend([each for each in getattr(page, _UNREACHABLE) if each not in named])
        token = page.next_page_token
    return whole
