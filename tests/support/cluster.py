"""A cluster of real processes in a folder of its own, killed and started again as a test likes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from roundhouse.client import Client
from roundhouse.kit.errors import Unreachable
from roundhouse.v1 import node_pb2

T = TypeVar("T")
PATIENCE_S = 90.0  # two cores, several engines that import torch at once


class Cluster:
    """One control plane and one node agent with two simulated GPUs, or more of them, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start_control_plane(self, *options: str) -> None:
        """Starts it on a free port; started again, it takes the same one."""
        state = self.folder / "controlplane"
        (state / "address").unlink(missing_ok=True)
        listen = self.address or "127.0.0.1:0"
        self._spawn("controlplane", "--listen", listen, "--state-dir", str(state), *options)
        self.address = await eventually(lambda: (state / "address").read_text().strip(), "the control plane listens")

    def start_agent(self, *options: str, node: str = "", control_plane: str = "") -> None:
        """Starts it; started again, it finds its engines.

        node: the id of another one beside the first. control_plane: what it calls, if that is not the control plane.
        """
        name = f"nodeagent-{node}" if node else "nodeagent"
        options = options or ("--simulate-gpus", "2x24GiB")
        if node:
            options = ("--node-id", node, *options)
        state = self.folder / name
        address = control_plane or self.address
        self._spawn("nodeagent", "--control-plane", address, "--state-dir", str(state), *options, name=name)

    async def start_gateway(self, name: str = "gateway", *options: str, control_plane: str = "") -> str:
        """Starts one on a free port; returns its address.

        control_plane: what it calls, if that is not the control plane.
        """
        announced = self.folder / f"{name}.address"
        announced.unlink(missing_ok=True)
        arguments = ["--role", "gateway", "--control-plane", control_plane or self.address, "--listen", "127.0.0.1:0"]
        self._spawn("controlplane", *arguments, "--address-file", str(announced), *options, name=name)
        return await eventually(lambda: announced.read_text().strip(), "the gateway listens")

    def kill(self, name: str) -> None:
        """Ends a process as the kernel does when memory is out."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def _spawn(self, module: str, *arguments: str, name: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name or module}.log").open("ab") as log:
            self.processes[name or module] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, stderr=log, start_new_session=True
            )

    async def stop(self) -> None:
        """Ends everything, the engines too, and waits for it."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        await eventually(self._are_ended, "the engines are gone")

    def _are_ended(self) -> bool:
        """Ends engines, those too that were being started when their agent was killed; tells whether there are none."""
        pids = engine_pids(self.folder)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        return not pids


def engine_pids(folder: Path) -> list[int]:
    """Returns the live engine processes whose bundles are below `folder`, read off the system."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if b"engines" in arguments and any(each.startswith(os.fsencode(folder)) for each in arguments):
                found.append(int(entry.name))
    return found


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Cluster, Client]]:
    """Runs a cluster for the block and ends it to the last process."""
    it = Cluster(folder)
    try:
        await it.start_control_plane()
        it.start_agent()
        async with Client(it.address) as client:
            await node_ready(client)
            yield it, client
    finally:
        await it.stop()


async def answering(client: Client) -> None:
    """Asks until a control plane that was started again answers: a connection that was refused waits a little."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Unreachable):
                await client.nodes.list()
                return


async def node_ready(client: Client) -> None:
    """Watches until a node is READY."""
    async with client.nodes.watch() as events, asyncio.timeout(PATIENCE_S):
        async for event in events:
            if event.changed.state == node_pb2.NODE_STATE_READY:
                return


async def eventually(look: Callable[[], T], what: str, *, patience_s: float = PATIENCE_S) -> T:
    """Looks until something true is seen; a missing file counts as not yet."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + patience_s
    while loop.time() < end_s:
        with contextlib.suppress(FileNotFoundError):
            if seen := look():
                return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {patience_s:.0f} s: {what}")
