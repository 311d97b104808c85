"""The SQL of the embedded store. Each function is one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from sqlite3 import Connection, OperationalError

from controlplane.store.protocol import Batch, Change, Compare, Entry, Listing
from roundhouse.kit.errors import Conflict, TooLong
from roundhouse.v1 import errors_pb2

_LAST_CODE_POINT = 0x10FFFF
_COLUMNS = "key, value, create_revision, revision"
_UNDER = "key >= :first AND (:behind IS NULL OR key < :behind)"


def get(connection: Connection, key: str) -> Entry | None:
    """Returns the entry of a key."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM entries WHERE key = ? AND value IS NOT NULL", (key,)).fetchone()
    return None if row is None else Entry(*row)


def list_entries(connection: Connection, prefix: str, after: str | None, limit: int | None) -> Listing:
    """Returns the entries under a prefix, by key, as they are at the present revision."""
    query = (
        f"SELECT {_COLUMNS} FROM entries WHERE {_UNDER} AND key > :after AND value IS NOT NULL ORDER BY key LIMIT :most"
    )
    most = -1 if limit is None else limit + 1  # one more shows whether there is more
    with _transaction(connection, "DEFERRED"):
        revision, _ = _history(connection)
        rows = connection.execute(query, {**_range(prefix), "after": after or "", "most": most}).fetchall()
    return Listing(
        tuple(Entry(*row) for row in rows[:limit]), revision, has_more=limit is not None and len(rows) > limit
    )


def commit(
    connection: Connection,
    compares: Sequence[Compare],
    puts: Mapping[str, bytes],
    deletes: Collection[str],
    kept_deletions: int,
) -> int:
    """Writes all or nothing and returns the revision; raises Conflict. Keeps the newest deletions only."""
    with _transaction(connection, "IMMEDIATE"):
        for compare in compares:
            found = _revision_of(connection, compare.key)
            if found != compare.revision:
                raise Conflict(
                    f'"{compare.key}" is at revision {found}, not {compare.revision}: read again, then write',
                    metadata={"key": compare.key, "revision": str(found)},
                )
        present, _ = _history(connection)
        gone = sorted({key for key in deletes if _revision_of(connection, key)})
        if not puts and not gone:
            return present
        revision = present + 1
        connection.executemany(
            """INSERT INTO entries VALUES (:key, :value, :revision, :revision) ON CONFLICT (key) DO UPDATE SET
            create_revision = iif(value IS NULL, :revision, create_revision), value = :value, revision = :revision""",
            [{"key": key, "value": value, "revision": revision} for key, value in puts.items()],
        )
        connection.executemany(
            "UPDATE entries SET value = NULL, revision = ? WHERE key = ?", [(revision, key) for key in gone]
        )
        connection.execute("UPDATE history SET revision = ?", (revision,))
        if gone:
            _forget(connection, _oldest_to_forget(connection, kept_deletions))
        return revision


def changes(connection: Connection, prefix: str, after_revision: int, most: int) -> Batch:
    """Returns what changed under a prefix behind a revision: whole commits, until `most` is reached; raises TooLong."""
    span = {**_range(prefix), "after": after_revision}
    behind = f"FROM entries WHERE revision > :after AND {_UNDER}"
    with _transaction(connection, "DEFERRED"):
        present, compacted = _history(connection)
        if not compacted <= after_revision <= present:
            raise TooLong(
                f"revision {after_revision} is not among those kept, {compacted} to {present}: list again and go on",
                reason=errors_pb2.ERROR_REASON_RELIST,
            )
        cut = connection.execute(
            f"SELECT revision {behind} ORDER BY revision LIMIT 1 OFFSET {most - 1}", span
        ).fetchone()
        until = present if cut is None else cut[0]
        query = f"SELECT {_COLUMNS} {behind} AND revision <= :until ORDER BY revision, key"
        rows = connection.execute(query, {**span, "until": until}).fetchall()
    return Batch(tuple(Change(row[0], None if row[1] is None else Entry(*row), row[3]) for row in rows), until)


def compact(connection: Connection, revision: int) -> None:
    """Forgets the deletions up to a revision."""
    with _transaction(connection, "IMMEDIATE"):
        present, _ = _history(connection)
        _forget(connection, min(revision, present))


def _forget(connection: Connection, revision: int) -> None:
    connection.execute("DELETE FROM entries WHERE value IS NULL AND revision <= ?", (revision,))
    connection.execute("UPDATE history SET compacted_revision = max(compacted_revision, ?)", (revision,))


def _oldest_to_forget(connection: Connection, kept: int) -> int:
    query = "SELECT revision FROM entries WHERE value IS NULL ORDER BY revision DESC LIMIT 1 OFFSET ?"
    row = connection.execute(query, (kept,)).fetchone()
    return 0 if row is None else int(row[0])


def _history(connection: Connection) -> tuple[int, int]:
    revision, compacted = connection.execute("SELECT revision, compacted_revision FROM history").fetchone()
    return revision, compacted


def _revision_of(connection: Connection, key: str) -> int:
    row = connection.execute("SELECT revision FROM entries WHERE key = ? AND value IS NOT NULL", (key,)).fetchone()
    return 0 if row is None else int(row[0])


def _range(prefix: str) -> dict[str, str | None]:
    """Returns the first key that can begin with `prefix` and the first behind all that do, by code point."""
    cut = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not cut:
        return {"first": prefix, "behind": None}
    point = ord(cut[-1])
    return {
        "first": prefix,
        "behind": cut[:-1] + chr(0xE000 if point == 0xD7FF else point + 1),
    }  # surrogates are no text


@contextlib.contextmanager
def _transaction(connection: Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(OperationalError):  # SQLite rolls back by itself after some errors
            connection.execute("ROLLBACK")
        raise
