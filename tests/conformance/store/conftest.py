"""Every kind of store there is, opened empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from controlplane.store.protocol import Store
from controlplane.store.sqlite import open_sqlite

# In a directory that is its own, with as many seconds between bookmarks.
Open = Callable[[Path, float], AbstractAsyncContextManager[Store]]


def _sqlite(directory: Path, bookmark_s: float) -> AbstractAsyncContextManager[Store]:
    return open_sqlite(directory / "store.db", bookmark_s=bookmark_s)


STORES: Mapping[str, Open] = {"sqlite": _sqlite}


@pytest.fixture(params=sorted(STORES))
def open_store(request: pytest.FixtureRequest) -> Open:
    return STORES[request.param]


@pytest.fixture
async def store(open_store: Open, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path, 30.0) as opened:
        yield opened
