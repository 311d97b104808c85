"""A whole cluster of processes: control plane, node agent, an engine and gateways, as users have it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

from benchmarks.support.relays import gateway, running
from roundhouse.client import Client
from roundhouse.v1 import deployment_pb2, node_pb2

READY_S = 300.0  # an engine imports torch, and loads its model
STOP_ENGINES_S = "0"


@contextlib.asynccontextmanager
async def whole(
    deployment: deployment_pb2.Deployment,
    folder: Path,
    *,
    gateway_count: int,
    front: Collection[int],
    engine: Collection[int],
) -> AsyncIterator[Sequence[str]]:
    """Serves a deployment for the block; gives the address of the control plane, and then those of gateways.

    front: the cores of all but the engines, whose cores are `engine`.
    """
    state, announced = folder / "controlplane", folder / "controlplane" / "address"
    command = [sys.executable, "-m", "controlplane", "--listen", "127.0.0.1:0", "--state-dir", str(state)]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running("controlplane", command, front, folder, announced.exists))
        address = announced.read_text(encoding="utf-8").strip()
        agent = [sys.executable, "-m", "nodeagent", "--control-plane", address, "--state-dir", str(folder / "agent")]
        agent += ["--stop-engines-on-exit", STOP_ENGINES_S]
        await stack.enter_async_context(running("nodeagent", agent, engine, folder, lambda: True))
        gateways = [
            await stack.enter_async_context(gateway(address, front, folder, name=f"gateway-{number}"))
            for number in range(gateway_count)
        ]
        async with Client(address) as client, asyncio.timeout(READY_S):
            async with client.nodes.watch() as events:
                async for event in events:
                    if event.changed.state == node_pb2.NODE_STATE_READY:
                        break
            await client.deployments.create(deployment)
            await client.deployments.wait_ready(deployment.name, timeout_s=READY_S)
        yield [address, *(each.address for each in gateways)]
