"""Copies of the store: they follow it, also over a compaction, and tell what changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.fleet.table import RowChange, Table
from controlplane.store.protocol import Store
from controlplane.store.sqlite import open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(tmp_path / "store") as it:
        yield it


@contextlib.asynccontextmanager
async def following(table: Table[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(table.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def values(table: Table[str]) -> dict[str, str]:
    return {key: row.value for key, row in table.rows.items()}


async def test_it_loads_and_then_follows(store: Store) -> None:
    await store.commit([], {"a/1": b"x", "b/1": b"elsewhere"})
    table = Table(store, "a/", bytes.decode)
    changes: list[RowChange[str]] = []
    with table.changes.to(changes.append):
        await table.load()
        assert values(table) == {"1": "x"}
        async with following(table):
            revision = await store.commit([], {"a/2": b"y"}, ["a/1"])
            await table.reached(revision)
    assert values(table) == {"2": "y"}
    told = {(each.key, each.before and each.before.value, each.after and each.after.value) for each in changes}
    assert told == {("1", None, "x"), ("1", "x", None), ("2", None, "y")}


async def test_it_lists_again_after_a_compaction(store: Store) -> None:
    await store.commit([], {"a/1": b"x", "a/2": b"y"})
    table = Table(store, "a/", bytes.decode)
    await table.load()
    await store.commit([], {}, ["a/1"])
    revision = await store.commit([], {"a/3": b"z"})
    await store.compact(revision)
    gone = []
    with table.changes.to(lambda change: gone.append(change.key) if change.after is None else None):
        async with following(table):
            await table.reached(revision)
    assert values(table) == {"2": "y", "3": "z"}
    assert gone == ["1"]


async def test_what_is_reached_already_is_not_waited_for(store: Store) -> None:
    table = Table(store, "a/", bytes.decode)
    await table.load()
    await table.reached(0)
