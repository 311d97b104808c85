"""Whatever dies, stands still, is cut off or has no room: what was acknowledged comes back, and every request ends.

Two minutes of one seed here. ROUNDHOUSE_CHAOS_S=900 makes it fifteen, ROUNDHOUSE_CHAOS_SEED takes another seed
(`random` draws one), ROUNDHOUSE_CHAOS_REST_S says within how many seconds after the last fault all is to be as it was
acknowledged, and ROUNDHOUSE_CHAOS_RESULTS names a file to which a line of results is appended. `make soak` sets them.
Where no file system can be mounted, disks are not filled, and the results say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from tests.support.chaos import Faults, Truth, Users, differences
from tests.support.cluster import Cluster, engine_pids
from tests.support.full_disk import CannotMount, small_disk
from tests.support.results import tell
from tests.support.tcp_proxy import TcpProxy

SECONDS = float(os.environ.get("ROUNDHOUSE_CHAOS_S", "120"))
SEED = os.environ.get("ROUNDHOUSE_CHAOS_SEED", "1")
REST_S = float(os.environ.get("ROUNDHOUSE_CHAOS_REST_S", "120"))  # the aim is 30; what it took is among the results
DISK = "16m"  # of each process
IDLE = 0.02  # of a GPU that ranks as one that does nothing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 400)]


async def test_a_cluster_outlives_all_that_can_happen_to_its_processes(tmp_path: Path) -> None:
    seed = secrets.token_hex(4) if SEED == "random" else SEED
    it, truth = Cluster(tmp_path), Truth()
    with contextlib.ExitStack() as mounted:
        disks = own_disks(mounted, tmp_path, ("controlplane", "nodeagent-a", "nodeagent-b"))
        await wreak_havoc(it, truth, seed, disks)
    assert engine_pids(tmp_path) == []


async def wreak_havoc(it: Cluster, truth: Truth, seed: str, disks: Mapping[str, Path]) -> None:
    """Breaks things while users change and ask, and looks what there is in the end."""
    try:
        await it.start_control_plane()
        async with (
            TcpProxy(it.address).serving() as first,
            TcpProxy(it.address).serving() as second,
            Client(it.address, timeout_s=10) as client,
        ):
            proxies = {"nodeagent-a": first, "nodeagent-b": second}

            def start(name: str) -> None:
                node = name.removeprefix("nodeagent-")
                it.start_agent("--simulate-gpus", "1x24GiB", node=node, control_plane=proxies[name].address)

            for name in proxies:
                start(name)
            users = Users(client, truth, seed)
            changing = asyncio.create_task(users.change())
            asking = [asyncio.create_task(users.ask()) for _ in range(3)]
            await Faults(it, proxies, truth, start, seed, disks).run(SECONDS)
            last_fault_s = time.monotonic()
            users.leave()
            await changing
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            rested_s = await come_to_rest(it, client, truth) - last_fault_s
            report(seed, truth, rested_s, fills_disks=bool(disks))
            assert truth.wrong == []
            assert truth.outcomes["finished"] > 0
            await check_plans(client, truth)
            await check_restarts(client, truth)
            await check_a_new_plan(client)
    finally:
        await it.stop()


def own_disks(mounted: contextlib.ExitStack, folder: Path, names: Sequence[str]) -> Mapping[str, Path]:
    """Gives each process a small disk for its state; none where that is not possible."""
    try:
        return {name: mounted.enter_context(small_disk(folder / name, DISK)) for name in names}
    except CannotMount as error:
        print(f"disks are not filled: {error}")
        return {}


async def come_to_rest(it: Cluster, client: Client, truth: Truth) -> float:
    """Waits until the cluster is what was acknowledged, and stays it for a moment; returns when it was."""
    end_s, rested_s = time.monotonic() + REST_S, 0.0
    found = ["nothing has been looked at"]
    while time.monotonic() < end_s or rested_s:  # who is at rest in time may stay it for a moment longer
        found = await differences(it, client, truth)
        if found:
            rested_s = 0.0
        elif not rested_s:
            rested_s = time.monotonic()
        elif time.monotonic() - rested_s > 3.0:
            return rested_s
        await asyncio.sleep(0.2)
    raise AssertionError(f"not at rest {REST_S:g} s after the last fault: {found}; {truth.did}")


async def check_plans(client: Client, truth: Truth) -> None:
    """At rest, a plan is what stands."""
    for name in truth.counts:
        planned = await client.deployments.plan(name)
        assert planned.fits, name
        assert all(each.is_standing for each in planned.replicas), name


async def check_a_new_plan(client: Client) -> None:
    """What is planned for a deployment that is not there yet is what becomes of it."""
    async with client.nodes.watch() as events, asyncio.timeout(REST_S):  # else its rank changes while it is looked at
        busy: dict[str, float] = {}
        async for event in events:
            if event.WhichOneof("event") == "changed":
                busy[event.changed.name] = max(each.utilization_fraction for each in event.changed.gpus)
            if len(busy) == 2 and max(busy.values()) < IDLE:
                break
    wanted = deployment("probe", builtin="demo", replica_count=2, strategy="spread")
    planned = await client.deployments.plan(wanted)
    assert planned.fits
    await client.deployments.create(wanted)
    async with client.replicas.watch("probe") as replicas, asyncio.timeout(REST_S):
        placed: dict[int, tuple[str, list[str]]] = {}
        async for change in replicas:
            if change.changed.node:
                index = int(change.changed.name.rpartition("/")[2])
                placed[index] = change.changed.node, [each.uuid for each in change.changed.gpus]
            if len(placed) == 2:
                break
    assert placed == {each.index: (each.node, [gpu.uuid for gpu in each.gpus]) for each in planned.replicas}


async def check_restarts(client: Client, truth: Truth) -> None:
    """No engine died because somebody else did."""
    for name in truth.counts:
        for each in (await client.replicas.list(name)).replicas:
            assert each.restart_count == 0 or truth.may_have_died(each), f"{each.name}: {each.last_exit}"


def report(seed: str, truth: Truth, rested_s: float, *, fills_disks: bool) -> None:
    """Prints what happened, and keeps it where that was asked for."""
    result = {
        "seed": seed,
        "seconds": SECONDS,
        "fills_disks": fills_disks,
        "did": dict(truth.did),
        "requests": dict(truth.outcomes),
        "wrong": truth.wrong,
        "at_rest_after_s": round(rested_s, 1),
    }
    tell("ROUNDHOUSE_CHAOS_RESULTS", result)
