"""Copies of a store in one file: made while it is in use, looked into, and begun anew where they are to serve."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from sqlite3 import Connection

from controlplane.store import statements
from controlplane.store.protocol import Listing
from controlplane.store.schema import APPLICATION, VERSION, value
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import sync

BESIDE = ("-wal", "-shm")  # what SQLite keeps beside the file while it is open, and after a kill -9
_WAIT_S = 10.0  # for a lock that somebody holds


def copy_store(path: Path, to: Path) -> None:
    """Copies a store, which may be in use, as it is at one moment; for its owner alone. Checks the copy.

    What stood at `to` is replaced by the whole copy, or stays. Raises Usage if that fails, or it is no store of ours.
    """
    if not to.parent.is_dir():
        raise Usage(f"{to.parent} is no directory: make it, or choose another")
    fresh = to.with_name(f".{to.name}.{uuid.uuid4().hex}")
    try:
        with _refusals(path, to), _reading(path) as source:
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, on whatever it is kept
                _check_whole(copy, path)
            fresh.replace(to)
            sync(to.parent)
    finally:
        for end in ("", "-journal", *BESIDE):
            fresh.with_name(fresh.name + end).unlink(missing_ok=True)


def read_copy(path: Path, prefix: str) -> Listing:
    """Returns the entries under a prefix; raises Usage if it is no store of ours, or cannot be read."""
    with _refusals(path), _reading(path) as connection:
        return statements.list_entries(connection, prefix, None, None)


def begin_anew(path: Path, puts: Mapping[str, bytes]) -> None:
    """Gives a copy that nobody uses a history of its own, in which cursors and etags of the other mean nothing.

    puts: what is written at its beginning.
    """
    with _refusals(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE history SET epoch = ?", (str(uuid.uuid4()),))
        statements.commit(connection, (), puts, (), kept_deletions=0)


def files_of(path: Path) -> Collection[Path]:
    """Returns the files that a store has in its directory at present."""
    return [each for each in (path, *(path.with_name(path.name + end) for end in BESIDE)) if each.exists()]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Connection]:
    """Opens a store for the block; it is not made if it is not there, and neither is anything changed in it."""
    path.stat()
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S, isolation_level=None)
    ) as connection:
        if value(connection, "PRAGMA application_id") != APPLICATION:
            raise Usage(f"{path} is no store of a control plane: name one, or a backup of one")
        version = value(connection, "PRAGMA user_version")
        if version != VERSION:
            raise Usage(f"{path} has version {version} and this program knows {VERSION}: use the one that wrote it")
        yield connection


def _check_whole(connection: Connection, path: Path) -> None:
    found = str(value(connection, "PRAGMA integrity_check(1)"))
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(found.split()))
    if value(connection, "SELECT count(*) FROM history") != 1:
        raise Usage(f"{path} holds no history: use another backup")


@contextlib.contextmanager
def _refusals(path: Path, to: Path | None = None) -> Iterator[None]:
    subject = f"the store {path} cannot be read" if to is None else f"the store {path} cannot be copied to {to}"
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Usage(f"{subject}: {error}: check the permissions, and that there is room") from error
    except sqlite3.DatabaseError as error:
        raise Usage(f"the store {path} is broken: {error}: use another backup") from error
    except OSError as error:
        raise Usage(f"{subject}: {error.filename}: {error.strerror}: check the path, and that there is room") from error
