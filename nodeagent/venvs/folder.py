"""The folder of one environment on a node, and the locks that keep builders, users and the collector apart.

    <root>/<key>/
        lock          held shared by who builds it or runs from it, alone by who deletes it; its time is the last use
        build.lock    held by who builds it
        build.log     of the newest build, whether it succeeded or not
        .new-…/       being built; of nobody if nobody holds build.lock
        env/          the environment; appears as a whole

The locks are the kernel's (flock), so a process that was killed leaves none behind. An engine has the descriptor of
`lock` from its agent and never closes it, so its environment is in use for as long as it runs, whatever becomes of the
agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

PRIVATE = 0o700
_KEY = re.compile(r"[0-9a-f]{32}\Z")


class Folder:
    """The folder of one environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env, self.log = path / "env", path / "build.log"

    def use(self, *, waits: bool) -> int | None:
        """Returns a descriptor whose lock keeps it from being deleted; None if it is, unless that is waited for."""
        return self._hold("lock", fcntl.LOCK_SH, waits=waits)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Keeps everybody out for the block; yields False, and keeps nobody out, if somebody is in."""
        descriptor = self._hold("lock", fcntl.LOCK_EX, waits=False)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Keeps other builders out for the block, waiting for one that is in. What they left half made goes first."""
        descriptor = self._hold("build.lock", fcntl.LOCK_EX, waits=True)
        assert descriptor is not None
        try:
            self.sweep()
            yield
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Removes what is half made; nobody may be building."""
        for part in self.path.glob(".new-*"):
            shutil.rmtree(part, ignore_errors=True)

    def touch(self) -> None:
        """Notes that it is in use now."""
        with contextlib.suppress(OSError):
            os.utime(self.path / "lock")

    def used_s(self) -> float:
        """Returns when it was last in use, since 1970."""
        return (self.path / "lock").stat().st_mtime

    def _hold(self, name: str, kind: int, *, waits: bool) -> int | None:
        while True:
            self.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # it was deleted in this moment
            try:
                fcntl.flock(descriptor, kind if waits else kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # it was deleted while the lock was waited for, and is another file now


def folders(root: Path) -> list[Folder]:
    """Returns the folders of all environments."""
    if not root.is_dir():
        return []
    return [Folder(each) for each in sorted(root.iterdir()) if _KEY.match(each.name)]
