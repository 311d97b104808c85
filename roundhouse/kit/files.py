"""Files that a crash leaves either old or new, and a directory that one process owns."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from roundhouse.kit.errors import Usage

_PID_BYTES = 20


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Writes a file so that a reader, or the next start after a crash, sees the old content or the new."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def announced(path: Path | None, address: str) -> Iterator[None]:
    """Has an address stand in a file for the block, for whoever wants to call what was started; None: nowhere."""
    if path is None:
        yield
        return
    write_atomically(path, f"{address}\n".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Has a file, or the names in a directory, on disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def own_directory(path: Path, what: str) -> Iterator[Path]:
    """Makes a directory and holds its lock for the block; raises Usage, naming `what`, if another process holds it.

    The lock is the kernel's (flock), so a process that was killed leaves none behind.
    """

    def unusable(error: OSError) -> Usage:
        return Usage(f"the state directory {path} cannot be used: {error.strerror}: choose another with --state-dir")

    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unusable(error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, _PID_BYTES, 0).decode().strip() or "unknown"
            raise Usage(
                f"the state directory {path} is in use by another {what} (pid {pid}): "
                "stop it, or choose another with --state-dir"
            ) from None
        try:
            pid = str(os.getpid())
            os.pwrite(lock, pid.encode(), 0)  # over the one before, which takes no room on a full disk
            os.ftruncate(lock, len(pid))
        except OSError as error:
            raise unusable(error) from error
        yield path
    finally:
        os.close(lock)
