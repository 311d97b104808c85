"""Tells who holds memory of a GPU: our engines by replica, everybody else by pid and name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nodeagent.gpus.driver import Driver
from nodeagent.model import GpuProcess, Occupant

MOST_PROCESSES = 32  # that are shown of one GPU
_LONGEST_NAME = 64


class Pids(Protocol):
    """The processes of the machine."""

    def session(self, pid: int) -> int:
        """Returns the pid of the leader of its session; 0 if it cannot be learned."""

    def name(self, pid: int) -> str:
        """Returns the name of its program, without arguments; empty if it cannot be learned."""


class ProcPids:
    """What the kernel says. A process may end at any time, and in a container pids of the driver mean nothing."""

    def session(self, pid: int) -> int:
        """Returns the pid of the leader of its session; 0 if it cannot be learned."""
        try:
            return os.getsid(pid)
        except OSError:
            return 0

    def name(self, pid: int) -> str:
        """Returns the name of its program. Never its arguments: they hold tokens and prompts."""
        try:
            return Path(f"/proc/{pid}/comm").read_bytes().decode(errors="replace").strip()[:_LONGEST_NAME]
        except OSError:
            return ""


class Owners:
    """Knows which processes are ours: those in the session of an engine, also for a while after their end."""

    def __init__(self, pids: Pids) -> None:
        self._pids = pids
        self._leaders: Mapping[int, Occupant] = {}
        self._before: Mapping[int, str] = {}  # pid -> replica uid, for those on any GPU at the last sample
        self._now: dict[int, str] = {}
        self._replicas: Mapping[str, str] = {}  # names by uid

    def begin(self, occupants: Sequence[Occupant]) -> None:
        """Begins a sample, in which these are the engines of ours."""
        self._leaders = {each.pid: each for each in occupants if each.pid}
        self._replicas = {each.replica_uid: each.replica for each in occupants}
        self._before, self._now = self._now, {}

    def measured(self, held: Mapping[int, int | None]) -> Mapping[str, int]:
        """Returns the bytes of each engine by replica uid; what is not said is not guessed."""
        measured: dict[str, int] = {}
        for pid, used_bytes in held.items():
            owner = self._owner(pid)
            if owner and used_bytes is not None:
                measured[owner] = measured.get(owner, 0) + used_bytes
        return measured

    def processes(self, held: Mapping[int, int | None]) -> tuple[tuple[GpuProcess, ...], int]:
        """Returns the largest processes, and how many more there are."""
        largest = sorted(held.items(), key=lambda each: (-(each[1] or 0), each[0]))
        shown = largest[:MOST_PROCESSES]
        return tuple(self._process(pid, used) for pid, used in shown), len(largest) - len(shown)

    def _process(self, pid: int, used_bytes: int | None) -> GpuProcess:
        return GpuProcess(pid, self._pids.name(pid), self._replicas.get(self._owner(pid), ""), used_bytes)

    def _owner(self, pid: int) -> str:
        leader = self._leaders.get(self._pids.session(pid))
        # A process that has just ended may hold memory a while longer: it is still whose it was.
        owner = self._before.get(pid, "") if leader is None else leader.replica_uid
        if owner:
            self._now[pid] = owner
        return owner


def held_memory(driver: Driver, handle: Any) -> Mapping[int, int | None]:
    """Returns the bytes that each process holds of a GPU, by pid; None if NVML does not say how many."""
    nvml = driver.nvml
    held: dict[int, int | None] = {}
    for question in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        for each in driver.ask(question, handle) or ():
            # One that draws and computes is in two lists, with the same memory in both.
            known = held.get(each.pid)
            held[each.pid] = each.usedGpuMemory if known is None else max(known, each.usedGpuMemory or 0)
    return held


def our_bytes(gpu_uuid: str, measured: Mapping[str, int], occupants: Sequence[Occupant]) -> int:
    """Returns the bytes on a GPU that are our engines'.

    In a container NVML gives pids of the host, by which nothing can be recognized. A loaded engine that is not seen is
    taken to use what is reserved for it: counted as foreign, it would be counted twice.
    """
    loaded = [each for each in occupants if each.is_loaded and gpu_uuid in each.gpu_uuids]
    unseen = sum(each.reserved_bytes for each in loaded if each.replica_uid not in measured)
    return sum(measured.values()) + unseen
