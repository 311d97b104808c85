"""A control plane and a node agent on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from roundhouse.cli.up.child import Child, OnDeath, kept
from roundhouse.client import Client
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import own_directory
from roundhouse.kit.logs import Level
from roundhouse.v1 import node_pb2

START_WITHIN_S = 60.0
DRAIN_GRACE_S = 10.0  # running requests may finish; who waits at a terminal does not wait longer
_END_GRACE_S = 10.0  # beyond draining: an engine that ignores SIGTERM is killed after 5 s


@dataclass(frozen=True, slots=True)
class Settings:
    """What a cluster is started with. Without `simulate_gpus` real GPUs are used, else two simulated ones."""

    port: int
    state_dir: Path
    simulate_gpus: str | None
    log_level: Level


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs."""

    address: str
    client: Client
    node: node_pb2.Node
    control_plane: Child
    agent: Child


@contextlib.asynccontextmanager
async def control_plane(settings: Settings, on_death: OnDeath) -> AsyncIterator[tuple[Child, str]]:
    """Runs a control plane for the block and yields it with its address; raises Usage if it cannot start here."""
    state_dir = settings.state_dir / "controlplane"
    address = state_dir / "address"

    def command(listen: str) -> list[str]:
        return ["controlplane", "--listen", listen, *_common(settings, state_dir)]

    child = Child("control plane", command(f"127.0.0.1:{settings.port}"), _log(settings, "controlplane"), on_death)
    before = _identity(address)  # a control plane that was killed leaves its file
    async with kept(child, _END_GRACE_S) as keep:
        await child.until(lambda: _identity(address) if _identity(address) != before else None, START_WITHIN_S)
        where = address.read_text().strip()
        child.command = tuple(command(where))  # port 0 was any port; from now on it is this one
        keep()
        yield child, where


@contextlib.asynccontextmanager
async def agent(settings: Settings, client: Client, on_death: OnDeath) -> AsyncIterator[tuple[Child, node_pb2.Node]]:
    """Runs a node agent for the block and yields it with its node. Leaving drains and stops its engines."""
    gpus = (
        ["--simulate-gpus", settings.simulate_gpus]
        if settings.simulate_gpus
        else ["--simulate-gpus-if-none", "2x24GiB"]
    )
    common = _common(settings, settings.state_dir / "nodeagent")
    ending = ["--stop-engines-on-exit", f"{DRAIN_GRACE_S:g}"]
    command = ["nodeagent", "--control-plane", client.address, *gpus, *ending, *common]
    child = Child("node agent", command, _log(settings, "nodeagent"), on_death)
    lock = settings.state_dir / "nodeagent/lock"  # holds the id of the agent that owns the directory
    async with kept(child, DRAIN_GRACE_S + _END_GRACE_S, is_up=lambda pid: lock.read_text() == str(pid)) as keep:
        node = await child.alongside(_first_ready(client), START_WITHIN_S)
        keep()
        yield child, node


@contextlib.asynccontextmanager
async def running(settings: Settings, on_death: OnDeath) -> AsyncIterator[Cluster]:
    """Runs a cluster for the block; whatever was started is ended with it."""
    with own_directory(settings.state_dir, "roundhouse up"):
        (settings.state_dir / "logs").mkdir(exist_ok=True)
        async with (
            control_plane(settings, on_death) as (plane, address),
            Client(address) as client,
            agent(settings, client, on_death) as (agent_child, node),
        ):
            yield Cluster(address, client, node, plane, agent_child)


async def _first_ready(client: Client) -> node_pb2.Node:
    async with client.nodes.watch() as watch:
        async for event in watch:
            if event.changed.state == node_pb2.NODE_STATE_FOREIGN:
                why = next((each.message for each in event.changed.conditions if each.type == "Assignable"), "")
                raise Usage(
                    f"control plane and node agent of this state directory do not fit: of the node is said that {why}"
                )
            if event.changed.state == node_pb2.NODE_STATE_READY:
                return event.changed
    raise Usage("the control plane ended while its node agent started: look at its log")


def _common(settings: Settings, state_dir: Path) -> list[str]:
    return ["--state-dir", str(state_dir), "--log-level", settings.log_level]


def _log(settings: Settings, name: str) -> Path:
    return settings.state_dir / "logs" / f"{name}.log"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
