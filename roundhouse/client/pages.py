"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar


class Page(Protocol):
    """One page of a list."""

    next_page_token: str


AnyPage = TypeVar("AnyPage", bound=Page)


async def all_pages(fetch: Callable[[str], Awaitable[AnyPage]], items: str) -> AnyPage:
    """Returns the first page with the `items` of all others; `fetch` takes the token of a page, empty for the first."""
    whole = await fetch("")
    token, whole.next_page_token = whole.next_page_token, ""
    while token:
        page = await fetch(token)
        getattr(whole, items).extend(getattr(page, items))
        token = page.next_page_token
    return whole
