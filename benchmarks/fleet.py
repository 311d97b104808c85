"""Measures what a fleet of a thousand nodes with eight GPUs each asks of one control plane on one core.

`python -m benchmarks.fleet`. Agents are simulated: one process holds a real `Join` stream for each, over a connection
of its own on loopback, and reports every second all that NVML tells of eight busy GPUs. Nothing is computed by engines.
The control plane has the first core, agents and clients share the others. Aims: under 60 % of a core and 1 GiB, 99 of
100 reports seen by a watcher within 250 ms, 1,000 replicas placed within 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.support import machine
from benchmarks.support.fleet_child import Child, child
from benchmarks.support.fleet_plane import Plane, plane
from benchmarks.support.paths import LOGS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from roundhouse.client.client import Client
from roundhouse.client.specify import deployment
from roundhouse.v1 import condition_pb2
from roundhouse.v1.deployment_pb2 import Deployment
from roundhouse.v1.deployment_service_pb2 import DeploymentEvent

CPU_FRACTION, MEMORY_BYTES, WATCH_P99_S, PLACED_S = 0.60, 1 << 30, 0.250, 2.0  # the aims
GPU_COUNT = 8
PERIOD_S = 1.0
SETTLE_S = 3.0  # after agents have joined, or a watch has begun
PATIENCE_S = 120.0
NAME = "fleet"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    agent_count: int
    replica_count: int
    steady_s: float
    cold_rounds: int
    warm_rounds: int


WHOLE = Size(agent_count=1000, replica_count=1000, steady_s=20.0, cold_rounds=3, warm_rounds=5)
QUICK = Size(agent_count=50, replica_count=50, steady_s=3.0, cold_rounds=1, warm_rounds=2)


class Fleet:
    """All processes of a run, and what is measured of them."""

    def __init__(self, plane: Plane, agents: Child, watcher: Child, client: Client, records: Records) -> None:
        self._plane, self._agents, self._watcher = plane, agents, watcher
        self._client, self._records = client, records

    async def steady(self, load: str, size: Size, *, is_watched: bool) -> None:
        """Measures what reports cost, and how old they are when a client sees them."""
        cores = sorted(os.sched_getaffinity(0))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(size.steady_s)) if is_watched else None
            await asyncio.sleep(SETTLE_S)
            before, busy_s = await self._totals(), machine.busy_s(cores)
            await asyncio.sleep(size.steady_s)
            after, busy_s = await self._totals(), machine.busy_s(cores) - busy_s
        seen = {} if watching is None else watching.result()
        took = {name: after[name] - before[name] for name in before}
        wall_s, report_count = took["at_s"], max(1, took["report_count"])
        others_s = busy_s - took["plane_cpu_s"] - took["cpu_s"] - seen.get("cpu_s", 0.0)
        figures = {
            "plane_cpu_fraction": took["plane_cpu_s"] / wall_s,
            "plane_user_fraction": took["plane_user_s"] / wall_s,
            "plane_cpu_s_per_report": took["plane_cpu_s"] / report_count,
            "agents_cpu_fraction": took["cpu_s"] / wall_s,
            "agents_late_p99_s": after["late_p99_s"],
            "others_cpu_fraction": others_s / wall_s / len(cores),
            "reports_per_s": report_count / wall_s,
            "report_bytes": took["sent_bytes"] / report_count,
            **self._plane.memory_bytes(),
        }
        self._records.add("steady", load=load, **figures, watch=seen)
        print(
            f"{load}: {figures['plane_cpu_fraction']:.0%} of a core and {figures['rss_bytes'] / 2**20:.0f} MiB for "
            f"{figures['reports_per_s']:.0f} reports a second of {figures['report_bytes']:.0f} bytes"
        )
        print(
            f"  agents took {figures['agents_cpu_fraction']:.0%} of a core and were up to "
            f"{figures['agents_late_p99_s'] * 1e3:.0f} ms late (p99); "
            f"others took {figures['others_cpu_fraction']:.0%} of all cores"
        )
        if seen:
            print(
                f"  from report to watch: p50 {seen['p50_s'] * 1e3:.0f} ms, p99 {seen['p99_s'] * 1e3:.0f} ms, "
                f"{seen['event_count']} events of {seen['node_count']} nodes"
            )

    async def cold(self, count: int) -> Mapping[str, float]:
        """Places many replicas in a fleet without any."""
        wanted = deployment(NAME, builtin="demo", replica_count=count)
        return await self._placing("cold", count, lambda: self._client.deployments.create(wanted))

    async def warm(self, count: int) -> Mapping[str, float]:
        """Places one more, so that there are `count`."""
        return await self._placing("warm", count, lambda: self._client.deployments.scale(NAME, count))

    async def shrink(self, count: int) -> None:
        """Ends replicas until there are `count`."""
        await self._client.deployments.scale(NAME, count)
        await self._agents.ask("assigned", count=count, timeout_s=PATIENCE_S)

    async def gone(self) -> float:
        """Ends all replicas; returns how long that took."""
        start_s = time.monotonic()
        await self._client.deployments.delete(NAME, drain_grace_s=0.0)
        await self._client.deployments.wait_gone(NAME, PATIENCE_S)
        return time.monotonic() - start_s

    async def busy(self, are_busy: bool) -> None:
        """Lets engines report a load that changes with each report, or one that does not."""
        await self._agents.ask("busy", are_busy=are_busy, timeout_s=PATIENCE_S)

    async def _placing(self, kind: str, count: int, ask: Callable[[], Awaitable[object]]) -> Mapping[str, float]:
        usage = self._plane.usage()
        async with self._client.deployments.watch() as events, asyncio.timeout(PATIENCE_S):
            stream = aiter(events)
            await anext(stream)  # it has begun
            async with asyncio.TaskGroup() as group:
                assigned = group.create_task(self._agents.ask("assigned", count=count, timeout_s=PATIENCE_S))
                await asyncio.sleep(0)  # the question is out
                start_s = time.monotonic()
                answered = group.create_task(_timed(ask))
                placed = group.create_task(_timed(lambda: _until_placed(stream, count)))
        took = {
            "answered_s": answered.result() - start_s,
            "placed_s": placed.result() - start_s,
            "assigned_s": assigned.result()["at_s"] - start_s,
        }
        cpu_s = self._plane.usage().cpu_s - usage.cpu_s
        self._records.add("placing", load=kind, replica_count=count, plane_cpu_s=cpu_s, **took)
        print(
            f"{kind}, {count} replicas: answered after {took['answered_s']:.2f} s, shown as placed after "
            f"{took['placed_s']:.2f} s, all assigned after {took['assigned_s']:.2f} s"
        )
        return took

    async def _watch(self, watch_s: float) -> Mapping[str, Any]:
        return await self._watcher.ask("watch", settle_s=SETTLE_S, watch_s=watch_s, timeout_s=watch_s + PATIENCE_S)

    async def _totals(self) -> dict[str, float]:
        totals = await self._agents.ask("totals", timeout_s=PATIENCE_S)
        now = self._plane.usage()
        return {**totals, "at_s": now.at_s, "plane_user_s": now.user_s, "plane_cpu_s": now.cpu_s}


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    await work()
    return time.monotonic()


async def _until_placed(events: AsyncIterator[DeploymentEvent], count: int) -> None:
    async for event in events:
        if event.HasField("changed") and _is_placed(event.changed, count):
            return


def _is_placed(wanted: Deployment, count: int) -> bool:
    """Tells whether so many replicas are wanted, and all of them have a place."""
    is_acted_upon = wanted.replica_count == count and wanted.observed_generation == wanted.generation
    return is_acted_upon and any(
        each.type == "Placed" and each.status == condition_pb2.CONDITION_STATUS_TRUE for each in wanted.conditions
    )


@contextlib.asynccontextmanager
async def _fleet(size: Size, records: Records, state_dir: Path) -> AsyncIterator[Fleet]:
    cores = sorted(os.sched_getaffinity(0))
    first, rest = cores[:1], cores[1:] or cores
    logs = LOGS_DIRECTORY
    async with plane(state_dir, first, logs / "fleet-controlplane.log") as held:
        print(f"control plane: process {held.pid} on core {first[0]}")
        agents = {
            "address": held.address,
            "agent_count": size.agent_count,
            "gpu_count": GPU_COUNT,
            "period_s": PERIOD_S,
        }
        async with (
            child("benchmarks.support.fleet_agents", agents, rest, logs / "fleet-agents.log") as joining,
            child("benchmarks.support.fleet_watcher", {"address": held.address}, rest, logs / "fleet-watcher.log") as w,
            Client(held.address, timeout_s=PATIENCE_S) as client,
        ):
            start_s = time.monotonic()
            joined = await joining.ask("joined", timeout_s=PATIENCE_S)
            records.add("joined", agent_count=size.agent_count, joined_s=joined["at_s"] - start_s)
            print(f"{size.agent_count} agents joined in {joined['at_s'] - start_s:.1f} s")
            yield Fleet(held, joining, w, client, records)


async def _measure(size: Size, records: Records, only: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="roundhouse-fleet-") as state_dir:
        async with _fleet(size, records, Path(state_dir)) as fleet:
            if "steady" in only:
                await fleet.steady("empty", size, is_watched=False)
                await fleet.steady("watched", size, is_watched=True)
            if "placing" in only:
                await _place(fleet, size, records)
            if "busy" in only:
                await fleet.cold(size.replica_count)
                await fleet.busy(True)
                await fleet.steady("replicas", size, is_watched=True)


async def _place(fleet: Fleet, size: Size, records: Records) -> None:
    cold, warm = [], []
    for number in range(size.cold_rounds):
        cold.append(await fleet.cold(size.replica_count))
        if number == 0:
            await asyncio.sleep(SETTLE_S)
            # No deployment may have more than a thousand replicas: some make room for those that are measured.
            await fleet.shrink(size.replica_count - size.warm_rounds)
            for missing in reversed(range(size.warm_rounds)):
                await asyncio.sleep(SETTLE_S)
                warm.append(await fleet.warm(size.replica_count - missing))
        await asyncio.sleep(SETTLE_S)
        gone_s = await fleet.gone()
        records.add("gone", gone_s=gone_s)
        print(f"  gone after {gone_s:.2f} s")
        await asyncio.sleep(SETTLE_S)
    for load, found in (("cold", cold), ("warm", warm)):
        medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
        records.add("placing medians", load=load, rounds=len(found), **medians)
        print(f"{load}, medians of {len(found)}: " + ", ".join(f"{name} {each:.3f}" for name, each in medians.items()))


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 agents, for a few seconds")
    parser.add_argument("--agents", type=int, help="how many, and as many replicas")
    parser.add_argument("--only", default="steady,placing,busy", help="what is measured; default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    size = QUICK if asked.quick else WHOLE
    if asked.agents is not None:
        size = replace(size, agent_count=asked.agents, replica_count=asked.agents)
    records = Records(result_path(asked.results, "fleet"))
    records.add("run", **machine.described(ROOT, sorted(os.sched_getaffinity(0))), period_s=PERIOD_S, **asdict(size))
    asyncio.run(_measure(size, records, asked.only.split(",")))
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
