"""What every store promises of watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from controlplane.store.protocol import Batch, Change, Store
from roundhouse.kit.errors import TooLong
from roundhouse.v1 import errors_pb2
from tests.conformance.store.conftest import Open


async def commit_often(store: Store) -> int:
    """Makes 30 commits of 20 keys each, and returns the revision of the last."""
    revisions = [await store.commit([], {f"{number:02}/{each:02}": b"" for each in range(20)}) for number in range(30)]
    return revisions[-1]


async def told(watch: AsyncIterator[Batch], revision: int) -> list[Change]:
    """Returns what a watch tells up to a revision."""
    changes: list[Change] = []
    async for batch in watch:
        changes += batch.changes
        if batch.revision >= revision:
            break
    return changes


def outline(changes: list[Change]) -> list[tuple[str, bytes | None, int]]:
    return [(each.key, None if each.entry is None else each.entry.value, each.revision) for each in changes]


async def test_a_watch_tells_what_lies_behind_its_revision_and_nothing_else(store: Store) -> None:
    seen = await store.commit([], {"a/1": b"old", "a/2": b"old"})
    changed = await store.commit([], {"a/2": b"new", "b/1": b"new"})
    made = await store.commit([], {"a/3": b"new"})
    assert outline(await told(store.watch("a/", seen), made)) == [("a/2", b"new", changed), ("a/3", b"new", made)]


async def test_a_watch_tells_a_deletion(store: Store) -> None:
    seen = await store.commit([], {"a/1": b"", "a/2": b""})
    deleted = await store.commit([], {}, ["a/1"])
    assert outline(await told(store.watch("a/", seen), deleted)) == [("a/1", None, deleted)]


async def test_a_watch_wakes_for_a_commit(store: Store) -> None:
    async with aclosing(store.watch("a/", 0)) as watch:
        assert await anext(watch) == Batch((), 0)
        waiting = asyncio.ensure_future(anext(watch))
        revision = await store.commit([], {"a/1": b"new"})
        assert outline(list((await asyncio.wait_for(waiting, 5)).changes)) == [("a/1", b"new", revision)]


async def test_many_watches_wake_for_one_commit(store: Store) -> None:
    watches = [store.watch("", 0) for _ in range(50)]
    assert [await anext(watch) for watch in watches] == [Batch((), 0)] * 50
    waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
    revision = await store.commit([], {"a": b""})
    assert {batch.revision for batch in await asyncio.gather(*waiting)} == {revision}


async def test_the_first_bookmark_comes_when_all_that_was_there_is_told(store: Store) -> None:
    last = await store.commit([], {"a/1": b"", "b/1": b""})
    async with aclosing(store.watch("a/", 0)) as watch:
        assert [change.key for change in (await anext(watch)).changes] == ["a/1"]
        assert await anext(watch) == Batch((), last)


async def test_a_bookmark_tells_how_far_a_quiet_watch_has_come(open_store: Open, tmp_path: Path) -> None:
    async with open_store(tmp_path, 0.01) as store, aclosing(store.watch("a/", 0)) as watch:
        assert await anext(watch) == Batch((), 0)
        elsewhere = await store.commit([], {"b/1": b""})
        assert await told(watch, elsewhere) == []


async def test_a_reader_that_is_behind_gets_the_newest_state_of_each_key_once(store: Store) -> None:
    for number in range(20):
        await store.commit([], {"a": b"%d" % number})
    await store.commit([], {"gone": b""})
    last = await store.commit([], {}, ["gone"])
    changes = await told(store.watch("", 0), last)
    assert outline(changes) == [("a", b"19", 20), ("gone", None, 22)]


async def test_a_slow_reader_is_handed_whole_commits_a_few_at_a_time(store: Store) -> None:
    last = await commit_often(store)
    batches: list[Batch] = []
    async for batch in store.watch("", 0):
        batches.append(batch)
        if batch.revision == last:
            break
    assert len(batches) > 1
    assert max(len(batch.changes) for batch in batches) < 300
    assert [change.revision for batch in batches for change in batch.changes] == sorted([*range(1, 31)] * 20)
    assert all(batch.changes[-1].revision == batch.revision for batch in batches)
    ends = [batch.revision for batch in batches]
    assert ends == sorted(set(ends))


async def test_a_watch_is_taken_up_again_at_any_batch_without_a_gap(store: Store) -> None:
    last = await commit_often(store)
    keys: list[str] = []
    revision = 0
    while revision < last:
        async with aclosing(store.watch("", revision)) as watch:
            batch = await anext(watch)
        keys += [change.key for change in batch.changes]
        revision = batch.revision
    assert keys == [entry.key for entry in (await store.list("")).entries]


async def test_a_watch_that_nobody_reads_costs_the_writers_nothing(store: Store) -> None:
    async with aclosing(store.watch("", 0)) as watch:
        await anext(watch)
        for number in range(100):
            await store.commit([], {"a": b"%d" % number})
        assert outline(await told(watch, 100)) == [("a", b"99", 100)]


@pytest.mark.parametrize("revision", [1, 99], ids=["compacted", "never_reached"])
async def test_a_watch_from_where_nothing_is_kept_says_to_list_again(store: Store, revision: int) -> None:
    for number in range(3):
        await store.commit([], {f"a/{number}": b""})
    await store.compact(2)
    with pytest.raises(TooLong, match="list again") as caught:
        await anext(store.watch("a/", revision))
    assert caught.value.own_reason == errors_pb2.ERROR_REASON_RELIST


async def test_compaction_leaves_what_exists_and_what_was_deleted_since(store: Store) -> None:
    await store.commit([], {"a": b"", "b": b"", "c": b""})
    first = await store.commit([], {}, ["a"])
    second = await store.commit([], {}, ["b"])
    await store.compact(first)
    assert [entry.key for entry in (await store.list("")).entries] == ["c"]
    assert outline(await told(store.watch("", first), second)) == [("b", None, second)]


async def test_compacting_the_future_compacts_the_present(store: Store) -> None:
    present = await store.commit([], {"a": b""})
    await store.compact(present + 100)
    assert outline(await told(store.watch("", present), await store.commit([], {"b": b""}))) == [("b", b"", 2)]


async def test_compaction_does_not_overtake_a_quiet_watch_that_keeps_up(open_store: Open, tmp_path: Path) -> None:
    async with open_store(tmp_path, 0.01) as store, aclosing(store.watch("a/", 0)) as watch:
        elsewhere = await store.commit([], {"b": b""})
        assert await told(watch, elsewhere) == []
        await store.compact(elsewhere)
        made = await store.commit([], {"a/1": b""})
        assert outline(await told(watch, made)) == [("a/1", b"", made)]
