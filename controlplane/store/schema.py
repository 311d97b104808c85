"""The SQLite file: made, checked, opened."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection

from roundhouse.kit.errors import Usage

APPLICATION = 0x526E6448  # "RndH": says whose file it is
VERSION = 1
_ROOM_BYTES = 64 * 1024  # the index of the journal, and the first pages of it

# A deleted key keeps its row, without a value, until compaction; a watch tells it from there. So the history is as long
# as what was deleted lately, however much is written.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE entries (
  key TEXT NOT NULL UNIQUE, value BLOB, create_revision INTEGER NOT NULL, revision INTEGER NOT NULL
) STRICT;
CREATE INDEX entries_by_revision ON entries (revision);
CREATE INDEX deletions_by_revision ON entries (revision) WHERE value IS NULL;
CREATE TABLE history (epoch TEXT NOT NULL, revision INTEGER NOT NULL, compacted_revision INTEGER NOT NULL) STRICT;
INSERT INTO history VALUES ('{{epoch}}', 0, 0);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


def prepare(path: Path) -> str:
    """Makes the file if it is not there, checks it, and returns the epoch of its history; raises Usage."""
    with _refusals(path):
        path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            if value(connection, "SELECT count(*) FROM sqlite_schema") == 0:
                connection.executescript(_SCHEMA.format(epoch=uuid.uuid4()))
            _check(connection, path)
            return str(value(connection, "SELECT epoch FROM history"))


def connect(path: Path, timeout_s: float, *, reads_only: bool = False) -> Connection:
    """Opens a file that is prepared; waits `timeout_s` seconds for a lock that another process holds. Raises Usage."""
    with _refusals(path):
        connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)  # transactions are ours to begin
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # NORMAL would lose acknowledged commits with the power
        connection.execute(f"PRAGMA query_only = {int(reads_only)}")
        return connection


def _check(connection: Connection, path: Path) -> None:
    if value(connection, "PRAGMA application_id") != APPLICATION:
        raise Usage(f"{path} belongs to another program: choose another directory with --state-dir")
    version = value(connection, "PRAGMA user_version")
    if version != VERSION:
        raise Usage(f"{path} has version {version} and this program knows {VERSION}: start the version that wrote it")
    found = str(value(connection, "PRAGMA quick_check(1)"))
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(found.split()))


def value(connection: Connection, query: str) -> object:
    """Returns the one value that a query gives."""
    return connection.execute(query).fetchone()[0]


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        cure = "make room on its disk, which is full" if _is_full(path) else "check its permissions and who has it open"
        raise Usage(f"the store {path} cannot be opened: {error}: {cure}") from error
    except sqlite3.DatabaseError as error:
        raise Usage(f"the store {path} is broken: {error}: restore a backup, or move it away to begin anew") from error
    except OSError as error:
        raise Usage(f"the store {path} cannot be opened: {error.strerror}: choose another --state-dir") from error


def _is_full(path: Path) -> bool:
    """Tells whether there is no room for what SQLite needs to open a file."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _ROOM_BYTES
