"""What the embedded store promises beyond the protocol: its file, crashes, locks, and bounds."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from controlplane.store.door import open_door
from controlplane.store.protocol import Compare
from controlplane.store.schema import connect, prepare
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.kit.errors import TooLong, Unreachable, Usage
from roundhouse.v1 import errors_pb2

COMMITS_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from controlplane.store.sqlite import open_sqlite

async def write(store, life, writer):
    for number in range(1_000_000):
        key, value = f"{life}/{writer}/{number}", b"x" * (number % 5000)
        await store.commit([], {key: value, f"{life}/{writer}/last": str(number).encode()})
        print(key, len(value), flush=True)

async def main(path, life):
    async with open_sqlite(Path(path)) as store:
        await asyncio.gather(*(write(store, life, writer) for writer in range(3)))

asyncio.run(main(*sys.argv[1:]))
"""


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_every_acknowledged_commit_survives_kill_9(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for life in range(2):
        arguments = ("-c", COMMITS_UNTIL_KILLED, str(path), str(life))
        child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            for _ in range(100):
                key, size = (await child.stdout.readuntil(b"\n")).decode().split()
                acknowledged[key] = int(size)
        child.kill()
        for line in (await child.stdout.read()).decode().splitlines(keepends=True):
            if line.endswith("\n"):
                acknowledged[line.split()[0]] = int(line.split()[1])
        await child.wait()
        async with open_sqlite(path) as store:
            entries = {entry.key: entry.value for entry in (await store.list("")).entries}
        assert len(acknowledged) >= 100 * (life + 1)
        assert {key: len(entries[key]) for key in acknowledged} == acknowledged
        lasts = {key: value for key, value in entries.items() if key.endswith("/last")}
        for key, value in lasts.items():  # the two keys of a commit are there together or not at all
            stem = key.removesuffix("last")
            numbers = [int(other.removeprefix(stem)) for other in entries if other.startswith(stem) and other != key]
            assert max(numbers) == int(value)


async def test_a_store_that_is_opened_again_goes_on_where_it_was(path: Path) -> None:
    async with open_sqlite(path) as store:
        epoch = store.epoch
        made = await store.commit([], {"a": b"one", "b": b""})
        await store.commit([], {}, ["b"])
    async with open_sqlite(path) as store:
        assert store.epoch == epoch
        revision = await store.commit([Compare("a", made)], {"a": b"two"})
        assert revision == made + 2
        async with aclosing(store.watch("", made)) as watch:
            assert [(change.key, change.revision) for change in (await anext(watch)).changes] == [("b", 2), ("a", 3)]


async def test_another_file_has_another_epoch(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "one.db") as one, open_sqlite(tmp_path / "two.db") as two:
        assert one.epoch != two.epoch


async def test_nobody_else_may_read_the_file(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([], {"a": b""})
        assert {each.name: oct(each.stat().st_mode & 0o777) for each in path.parent.glob("store.db*")} == {
            "store.db": "0o600",
            "store.db-shm": "0o600",
            "store.db-wal": "0o600",
        }


def _write_text(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be read as one" * 100)


def _write_foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def _write_newer(path: Path) -> None:
    prepare(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def _write_damaged(path: Path) -> None:
    prepare(path)
    with contextlib.closing(connect(path, 1.0)) as connection:
        rows = [(f"key-{number}", bytes(900), number, number) for number in range(200)]
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


def _make_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        pytest.param(_write_text, "is broken: file is not a database: restore a backup, or move it away", id="text"),
        pytest.param(_write_foreign, "belongs to another program: choose another directory", id="foreign"),
        pytest.param(_write_newer, "has version 2 and this program knows 1: start the version", id="newer"),
        pytest.param(_write_damaged, "is broken: .*: restore a backup, or move it away", id="damaged"),
        pytest.param(_make_directory, "cannot be opened: .*: check", id="directory"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_with_the_cure_and_left_as_it_is(
    path: Path, write: Callable[[Path], None], says: str
) -> None:
    write(path)
    before = content(path)
    with pytest.raises(Usage, match=says):
        async with open_sqlite(path):
            pass
    assert content(path) == before


async def test_a_directory_that_is_not_there_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="cannot be opened: No such file or directory: choose another --state-dir"):
        async with open_sqlite(tmp_path / "missing" / "store.db"):
            pass


async def test_a_write_that_finds_the_file_locked_is_unknown(path: Path) -> None:
    async with open_sqlite(path, timeout_s=1.0) as store:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unreachable, match=r"database is locked: .* read again, then decide") as caught:
                await store.commit([], {"a": b""})
            assert caught.value.own_reason == errors_pb2.ERROR_REASON_STORE_UNKNOWN
            assert await store.get("a") is None  # reading goes on meanwhile
        await store.commit([Compare("a", 0)], {"a": b""})


async def test_a_write_without_room_is_not_made_and_says_so(path: Path) -> None:
    epoch = prepare(path)

    def connect_small() -> sqlite3.Connection:
        connection = connect(path, 1.0)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    async with (
        open_door(connect_small, "write", 10.0) as writer,
        open_door(lambda: connect(path, 1.0, reads_only=True), "read", 10.0) as reader,
    ):
        store = SqliteStore(writer, reader, epoch, kept_deletions=10, bookmark_s=30.0)
        await store.commit([], {"a": b"old"})
        with pytest.raises(Unreachable, match="disk of the store is full, and nothing was written") as caught:
            await store.commit([], {"a": b"new", "b": bytes(500_000)})
        assert caught.value.own_reason == errors_pb2.ERROR_REASON_STORE_UNKNOWN
        assert [(each.key, each.value) for each in (await store.list("")).entries] == [("a", b"old")]
        await store.commit([], {"a": b"newer"})


async def test_a_write_that_was_given_up_and_happens_all_the_same_is_told_by_watches(path: Path) -> None:
    epoch = prepare(path)
    began = threading.Event()

    def connect_traced() -> sqlite3.Connection:
        connection = connect(path, 10.0)
        connection.set_trace_callback(lambda _: began.set())
        return connection

    async with (
        open_door(connect_traced, "write", 0.1) as writer,
        open_door(lambda: connect(path, 10.0, reads_only=True), "read", 10.0) as reader,
    ):
        store = SqliteStore(writer, reader, epoch, kept_deletions=10, bookmark_s=30.0)
        async with aclosing(store.watch("", 0)) as watch:
            await anext(watch)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(Unreachable, match=r"did not answer within 0\.1 s"):
                    await store.commit([], {"a": b"late"})
                assert began.is_set()
            batch = await asyncio.wait_for(anext(watch), 10)
        assert [change.key for change in batch.changes] == ["a"]


async def test_what_was_deleted_is_kept_up_to_a_bound(path: Path) -> None:
    async with open_sqlite(path, kept_deletions=5) as store:
        for number in range(20):
            await store.commit([], {f"a/{number}": b""})
            await store.commit([], {}, [f"a/{number}"])
        last = 40
        with pytest.raises(TooLong):
            await anext(store.watch("", 1))
        oldest_kept = last - 2 * 5
        batch = await anext(store.watch("", oldest_kept))
        assert [change.revision for change in batch.changes] == list(range(oldest_kept + 2, last + 1, 2))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (5,)


async def test_writing_one_key_again_and_again_does_not_make_the_file_grow(path: Path) -> None:
    async def write(times: int) -> None:
        async with open_sqlite(path) as store:
            for number in range(times):
                await store.commit([], {"a": bytes(number % 1000)})

    await write(50)
    size = len(content(path))
    await write(200)
    assert len(content(path)) == size
