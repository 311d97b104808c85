"""Disks without room: one that is mounted, filled and freed, and writes of this process that fail."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path


class CannotMount(Exception):
    """Nothing can be mounted here; the message says why."""


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mounts a file system in memory for the block, for example of `8m`; raises CannotMount."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "roundhouse-test", str(path)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotMount("there is no program mount") from None
    if ended.returncode:
        raise CannotMount(ended.stderr.strip())
    try:
        yield path
    finally:
        # Lazily: whoever has still something open there does not keep it from going.
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> None:
    """Takes all the room on a disk."""
    with contextlib.suppress(OSError), _ballast(disk).open("ab", buffering=0) as file:
        while True:
            file.write(bytes(os.statvfs(disk).f_frsize))


def free(disk: Path) -> None:
    """Gives it back."""
    _ballast(disk).unlink(missing_ok=True)


@contextlib.contextmanager
def without_room() -> Iterator[None]:
    """Lets no file of this process grow in the block: writing raises OSError."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _ballast(disk: Path) -> Path:
    return disk / "ballast"
