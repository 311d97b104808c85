"""Gateways behind one port as a process of their own, and what the machine knows of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.cluster import eventually


@dataclass(frozen=True)
class Group:
    """Whoever keeps the gateways, and where they serve."""

    process: subprocess.Popen[bytes]
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def gateways(self) -> dict[int, psutil.Process]:
        """Returns those that live, by process id."""
        return {each.pid: each for each in psutil.Process(self.process.pid).children() if is_alive(each)}

    def connection_counts(self) -> dict[int, int]:
        """Returns how many clients each has."""
        counts = {}
        for pid, each in self.gateways().items():
            with contextlib.suppress(psutil.Error):
                found = each.net_connections("tcp")
                counts[pid] = sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == self.port for c in found)
        return counts

    async def until_listening(self, count: int, *, but: int = 0) -> set[int]:
        """Waits until so many listen, `but` not among them; returns their process ids."""

        def listening() -> set[int]:
            found = set()
            for pid, each in self.gateways().items():
                with contextlib.suppress(psutil.Error):
                    if any(
                        c.status == psutil.CONN_LISTEN and c.laddr.port == self.port for c in each.net_connections()
                    ):
                        found.add(pid)
            return found if len(found) == count and but not in found else set()

        return await eventually(listening, f"{count} gateways listen")


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@contextlib.asynccontextmanager
async def gateway_group(folder: Path, control_plane: str, count: int) -> AsyncIterator[Group]:
    """Runs them for the block."""
    announced = folder / "gateways.address"
    process = _start(
        folder, "--control-plane", control_plane, "--gateways", str(count), "--address-file", str(announced)
    )
    try:
        yield Group(process, await eventually(lambda: announced.read_text().strip(), "the gateways listen"))
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def _start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "controlplane", "--role", "gateway", "--listen", "127.0.0.1:0", *arguments]
    with (folder / "gateways.log").open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
