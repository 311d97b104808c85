"""The control plane that a fleet is held by: a real process, pinned to its cores, and what it takes of the machine."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.support.fleet_child import ChildFailed, on_cores, wait_or_kill
from benchmarks.support.paths import ROOT

START_S = 30.0
STOP_S = 20.0
_SERVING = b"control plane serving"


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process took so far."""

    at_s: float
    user_s: float
    system_s: float

    @property
    def cpu_s(self) -> float:
        """All of it."""
        return self.user_s + self.system_s


class Plane:
    """A control plane that serves."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid, self.address = pid, address
        self._process = psutil.Process(pid)

    def usage(self) -> Usage:
        """Returns the processor time until now."""
        times = self._process.cpu_times()
        return Usage(time.monotonic(), times.user, times.system)

    def memory_bytes(self) -> dict[str, int]:
        """Returns the memory that it has, and the most that it had."""
        found = self._process.memory_full_info()
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        [peak_kib] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        return {"rss_bytes": found.rss, "pss_bytes": found.pss, "peak_rss_bytes": peak_kib * 1024}


@contextlib.asynccontextmanager
async def plane(state_dir: Path, cores: Collection[int], log: Path) -> AsyncIterator[Plane]:
    """Runs a control plane for the block; its log goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "controlplane", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir)]
    with on_cores(cores):
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stderr is not None
    serving = asyncio.Event()
    logging = asyncio.create_task(_log(process.stderr, log, serving), name="log of the control plane")
    try:
        async with asyncio.timeout(START_S):
            await serving.wait()
        if process.returncode is not None or not (state_dir / "address").exists():
            raise ChildFailed(f"the control plane does not start ({log})")
        yield Plane(process.pid, (state_dir / "address").read_text(encoding="utf-8").strip())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await wait_or_kill(process, STOP_S)
        await logging


async def _log(source: asyncio.StreamReader, log: Path, serving: asyncio.Event) -> None:
    with log.open("wb") as file:
        while line := await source.readline():
            file.write(line)
            file.flush()
            if _SERVING in line:
                serving.set()
    serving.set()  # or it never will
