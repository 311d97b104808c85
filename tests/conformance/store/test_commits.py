"""What every store promises of reads and commits."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.store.protocol import MAX_KEY_BYTES, MAX_VALUE_BYTES, Compare, Entry, Store
from roundhouse.kit.errors import Conflict, InvalidArgument


async def test_an_empty_store_is_at_revision_0(store: Store) -> None:
    listing = await store.list("")
    assert (listing.entries, listing.revision, listing.has_more) == ((), 0, False)


async def test_what_was_put_is_read_with_the_revisions_of_its_making_and_of_its_last_write(store: Store) -> None:
    made = await store.commit([], {"a": b"one"})
    changed = await store.commit([], {"a": b"two"})
    assert changed > made
    assert await store.get("a") == Entry("a", b"two", create_revision=made, revision=changed)


async def test_a_value_may_be_empty_or_hold_any_byte(store: Store) -> None:
    every_byte = bytes(range(256))
    await store.commit([], {"empty": b"", "full": every_byte})
    assert [entry.value for entry in (await store.list("")).entries] == [b"", every_byte]


async def test_a_deleted_key_is_gone_and_made_again_as_another(store: Store) -> None:
    await store.commit([], {"a": b"one"})
    await store.commit([], {}, ["a"])
    assert await store.get("a") is None
    assert (await store.list("")).entries == ()
    again = await store.commit([Compare("a", 0)], {"a": b"two"})
    assert await store.get("a") == Entry("a", b"two", create_revision=again, revision=again)


async def test_all_keys_of_a_commit_stand_at_one_revision(store: Store) -> None:
    revision = await store.commit([], {"a": b"", "b": b"", "c": b""})
    assert {entry.revision for entry in (await store.list("")).entries} == {revision}


async def test_what_changes_nothing_takes_no_revision(store: Store) -> None:
    revision = await store.commit([], {"a": b""})
    assert await store.commit([], {}, ["never made"]) == revision
    assert await store.commit([Compare("a", revision)], {}) == revision
    assert (await store.list("")).revision == revision


@pytest.mark.parametrize("expected", [0, 2], ids=["it_exists", "it_is_older"])
async def test_a_compare_that_does_not_hold_is_a_conflict_and_writes_nothing(store: Store, expected: int) -> None:
    await store.commit([], {"a": b"one"})
    with pytest.raises(Conflict) as caught:
        await store.commit([Compare("b", 0), Compare("a", expected)], {"a": b"two", "b": b"two"}, ["a"] * 0)
    assert caught.value.metadata == {"key": "a", "revision": "1"}
    assert [(entry.key, entry.value) for entry in (await store.list("")).entries] == [("a", b"one")]
    assert (await store.list("")).revision == 1


async def test_a_compare_with_a_deleted_key_holds_as_if_it_never_was(store: Store) -> None:
    made = await store.commit([], {"a": b""})
    await store.commit([], {}, ["a"])
    with pytest.raises(Conflict):
        await store.commit([Compare("a", made)], {"a": b""})
    await store.commit([Compare("a", 0)], {"a": b""})


async def test_of_writers_that_saw_the_same_revision_one_wins(store: Store) -> None:
    seen = await store.commit([], {"count": b"0"})
    writers = [store.commit([Compare("count", seen)], {"count": b"%d" % number}) for number in range(8)]
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_a_list_is_by_key_and_of_its_prefix_alone(store: Store) -> None:
    keys = ["a", "a/", "a/1", "a/2", "a0", "b/1", "a/ä", "a/\U0010ffff", "a\U0010ffff"]
    await store.commit([], dict.fromkeys(keys, b""))
    listed = [entry.key for entry in (await store.list("a/")).entries]
    assert listed == ["a/", "a/1", "a/2", "a/ä", "a/\U0010ffff"]
    assert [entry.key for entry in (await store.list("")).entries] == sorted(keys)
    assert [entry.key for entry in (await store.list("a\U0010ffff")).entries] == ["a\U0010ffff"]


async def test_pages_of_a_list_join_into_the_whole(store: Store) -> None:
    await store.commit([], {f"a/{number}": b"" for number in range(5)} | {"b": b""})
    first = await store.list("a/", limit=2)
    second = await store.list("a/", after=first.entries[-1].key, limit=2)
    last = await store.list("a/", after=second.entries[-1].key, limit=2)
    assert [page.has_more for page in (first, second, last)] == [True, True, False]
    joined = (*first.entries, *second.entries, *last.entries)
    assert joined == (await store.list("a/")).entries
    assert not (await store.list("a/", limit=5)).has_more


async def test_a_value_must_be_smaller_than_the_limit(store: Store) -> None:
    await store.commit([], {"a": bytes(MAX_VALUE_BYTES - 1)})
    with pytest.raises(InvalidArgument, match=r'"a" takes 1048576 bytes; .*: send less'):
        await store.commit([], {"a": bytes(MAX_VALUE_BYTES)})


@pytest.mark.parametrize("key", ["", "k" * (MAX_KEY_BYTES + 1)], ids=["empty", "too_long"])
async def test_a_key_must_be_within_the_limits(store: Store, key: str) -> None:
    with pytest.raises(InvalidArgument, match="use 1 to 1024"):
        await store.commit([], {key: b""})


async def test_a_value_is_not_shown_where_an_entry_is_printed(store: Store) -> None:
    await store.commit([], {"a": b"hunter2"})
    assert "hunter2" not in repr(await store.get("a"))
