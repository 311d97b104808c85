"""Processors, memory and disks of the host, and what our engines use of its memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from nodeagent.aside import aside
from nodeagent.model import Disk, HostReading, Occupant

# What no file backs: when it grows, what is available shrinks. The rest of a resident set are pages of libraries and of
# weights that are mapped, which the kernel can take back at any time.
_ANONYMOUS = (b"RssAnon:", b"RssShmem:")
_PROC = Path("/proc")


class PsutilHost:
    """The machine that the agent runs on. Of its disks it looks at those that hold these directories."""

    def __init__(self, directories: Iterable[Path] = ()) -> None:
        self._disks = Disks(directories)
        psutil.cpu_percent()  # the first answer means nothing: each is about the time since the one before

    def read(self, occupants: Sequence[Occupant]) -> HostReading:
        """Returns what is so now, with the memory of these engines, and what was last learned of the disks."""
        memory = psutil.virtual_memory()
        return HostReading(
            cpu_count=len(os.sched_getaffinity(0)),
            cpu_fraction=min(1.0, psutil.cpu_percent() / 100),
            total_bytes=memory.total,
            available_bytes=memory.available,
            measured_bytes=engine_memory(occupants),
            disks=self._disks.look(),
        )


def engine_memory(occupants: Iterable[Occupant]) -> Mapping[str, int]:
    """Returns the bytes of memory of each engine by replica uid: of all processes of its session, without files.

    Pages that processes of one session share are counted for each of them.
    """
    leaders = {each.pid: each.replica_uid for each in occupants if each.pid}
    measured: dict[str, int] = {}
    for pid in _pids() if leaders else ():
        try:
            owner = leaders.get(os.getsid(pid))
            if owner is not None:
                measured[owner] = measured.get(owner, 0) + _anonymous_bytes(pid)
        except OSError:
            continue  # it has ended
    return measured


class Disks:
    """The file systems of some directories. One that hangs, on a network say, holds up nobody."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._directories = tuple(directories)
        self._asked: asyncio.Task[tuple[Disk, ...]] | None = None
        self._known: tuple[Disk, ...] = ()

    def look(self) -> tuple[Disk, ...]:
        """Returns what was last learned, and begins to look again unless it still looks. In the event loop only."""
        asked = self._asked
        if asked is not None and asked.done():
            self._known, self._asked = asked.result(), None
        if self._asked is None and self._directories:
            self._asked = asyncio.create_task(aside(lambda: read_disks(self._directories), "disks"), name="disks")
        return self._known


def read_disks(directories: Iterable[Path]) -> tuple[Disk, ...]:
    """Returns the file system of each directory, each once. One that is not there yet is its nearest parent that is."""
    disks: dict[int, Disk] = {}
    for directory in directories:
        try:
            there = next(each for each in (directory, *directory.parents) if each.exists())
            number, found = there.stat().st_dev, os.statvfs(there)
        except OSError:
            continue  # it is not ours to read, or it has just been taken away
        if number not in disks:
            disks[number] = Disk(str(directory), found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    return tuple(disks.values())


def _pids() -> list[int]:
    return [int(each) for each in os.listdir(_PROC) if each.isdecimal()]  # noqa: PTH208 - the names, no paths


def _anonymous_bytes(pid: int) -> int:
    status = (_PROC / str(pid) / "status").read_bytes()
    lines = [line for line in status.splitlines() if line.startswith(_ANONYMOUS)]
    return sum(int(line.split()[1]) * 1024 for line in lines)  # the kernel counts in kB, and means KiB
