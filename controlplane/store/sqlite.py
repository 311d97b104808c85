"""The embedded store: one SQLite file, one thread that writes and one that reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection

from controlplane.store import statements
from controlplane.store.door import Door, open_door
from controlplane.store.protocol import MAX_KEY_BYTES, MAX_VALUE_BYTES, Batch, Compare, Entry, Listing
from controlplane.store.schema import connect, prepare
from roundhouse.kit.errors import InvalidArgument

KEPT_DELETIONS = 10_000  # a watch that is further behind lists again
BOOKMARK_S = 30.0
TIMEOUT_S = 5.0  # a disk that takes longer for one commit is not waited for
_BATCH = 256  # changes that a slow reader makes us hold at once, more only if one commit made more


@contextlib.asynccontextmanager
async def open_sqlite(
    path: Path, *, kept_deletions: int = KEPT_DELETIONS, bookmark_s: float = BOOKMARK_S, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[SqliteStore]:
    """Opens the store in a file for the block, and makes it if it is not there.

    Raises Usage if the file is broken, not ours, of a newer version or cannot be opened.
    """
    epoch = await asyncio.to_thread(prepare, path)
    lock_s = timeout_s / 2  # whoever waited for a lock in vain learns of it before the write counts as unknown
    async with (
        open_door(lambda: connect(path, lock_s), "store-write", timeout_s) as writer,
        open_door(lambda: connect(path, lock_s, reads_only=True), "store-read", timeout_s) as reader,
    ):
        yield SqliteStore(writer, reader, epoch, kept_deletions=kept_deletions, bookmark_s=bookmark_s)


class SqliteStore:
    """A `Store` in one SQLite file. Made by `open_sqlite`."""

    def __init__(self, writer: Door, reader: Door, epoch: str, *, kept_deletions: int, bookmark_s: float) -> None:
        self._writer, self._reader, self._epoch = writer, reader, epoch
        self._kept_deletions, self._bookmark_s = kept_deletions, bookmark_s
        self._changed = asyncio.Event()  # one for each commit: whoever waits holds the one of his time

    @property
    def epoch(self) -> str:
        """Returns the UUID made with the file."""
        return self._epoch

    async def get(self, key: str) -> Entry | None:
        """Returns the entry of a key, None if there is none."""
        return await self._reader.run(statements.get, key)

    async def list(self, prefix: str, *, after: str | None = None, limit: int | None = None) -> Listing:
        """Returns the entries whose keys begin with `prefix`, by key."""
        return await self._reader.run(statements.list_entries, prefix, after, limit)

    async def commit(
        self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Collection[str] = ()
    ) -> int:
        """Writes all or nothing, durably before it returns; returns the revision at which the writes stand."""
        _check(puts, deletes)
        loop = asyncio.get_running_loop()

        def write(connection: Connection) -> int:
            revision = statements.commit(connection, compares, puts, deletes, self._kept_deletions)
            # Not from the waiting caller: it may have given up, and watches must learn of the write all the same.
            loop.call_soon_threadsafe(self._wake)
            return revision

        return await self._writer.run(write)

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """Yields what changed behind a revision under a prefix, then what changes."""
        now = asyncio.get_running_loop().time
        revision, bookmark_at = after_revision, now()
        while True:
            changed = self._changed  # before the read, so that no commit falls between
            batch = await self._reader.run(statements.changes, prefix, revision, _BATCH)
            revision = batch.revision  # without a change too: what is quiet must not fall behind what is kept
            if batch.changes:
                yield batch
            elif now() >= bookmark_at:
                yield batch
                bookmark_at = now() + self._bookmark_s
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(bookmark_at):  # wait_for of Python 3.11 may swallow a cancel
                        await changed.wait()

    async def compact(self, revision: int) -> None:
        """Forgets the deletions up to a revision."""
        await self._writer.run(statements.compact, revision)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _check(puts: Mapping[str, bytes], deletes: Collection[str]) -> None:
    for key, value in puts.items():
        if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
            raise InvalidArgument(f'the key "{key[:64]}" has {len(key.encode())} bytes: use 1 to {MAX_KEY_BYTES}')
        if len(value) >= MAX_VALUE_BYTES:
            raise InvalidArgument(
                f'"{key}" takes {len(value)} bytes; the store takes fewer than {MAX_VALUE_BYTES}: send less'
            )
    assert puts.keys().isdisjoint(deletes), "one commit puts and deletes the same key"
