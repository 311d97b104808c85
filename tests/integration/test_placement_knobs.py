"""Every flag that says where replicas may go does what it says: launched by the command line, placed for real."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from roundhouse.v1 import node_pb2
from tests.support.plane import Plane, plane_on
from tests.support.scripted_agent import GIB, ScriptedAgent

Place = tuple[str, tuple[int, ...]]  # a node, and indexes of GPUs; none on its processors


class Fleet:
    """Nodes of a real control plane, and a command line that asks it."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def launch(self, *flags: str, name: str = "chat") -> list[Place]:
        """Launches the demo model until it is ready; returns where each replica is."""
        status, said = await self._run(name, *flags)
        assert status == 0, said
        return [
            (each.node.removeprefix("nodes/"), tuple(gpu.index for gpu in each.gpus))
            for each in await self.plane.replicas(name)
        ]

    async def refusal(self, *flags: str) -> str:
        """Launches what cannot be had; returns what is said of it."""
        status, said = await self._run("chat", *flags)
        assert status == 1, said
        return said

    async def _run(self, name: str, *flags: str) -> tuple[int | None, str]:
        words = ["--address", self.plane.address, "launch", "demo", "-u", name, "--json", "--timeout", "30", *flags]
        # A process, as a person starts it: it sets up logging, which is not to be that of the tests.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "roundhouse.cli", *words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, said = await process.communicate()
        return process.returncode, said.decode()


@contextlib.asynccontextmanager
async def fleet_of(agents: Iterable[ScriptedAgent], folder: Path) -> AsyncIterator[Fleet]:
    """Runs a control plane with these nodes for the block."""
    async with plane_on(folder) as plane, contextlib.AsyncExitStack() as stack:
        for agent in agents:
            await stack.enter_async_context(agent.joined(plane.address))
        yield Fleet(plane)


def two_nodes(gpu_count: int = 2) -> tuple[ScriptedAgent, ScriptedAgent]:
    return (
        ScriptedAgent("a", gpu_count=gpu_count, machine="m1"),
        ScriptedAgent("b", gpu_count=gpu_count, machine="m2"),
    )


def uneven() -> ScriptedAgent:
    """One node: its first GPU is the busiest and has the most memory, its last one the least memory."""
    agent = ScriptedAgent("a", gpu_count=3)
    for gpu, busy, foreign in zip(agent.gpus, (0.6, 0.0, 0.3), (0, 4, 12), strict=True):
        gpu.utilization_fraction = busy
        gpu.used_memory_bytes = gpu.foreign_memory_bytes = foreign * GIB
        gpu.free_memory_bytes -= foreign * GIB
    return agent


@pytest.mark.parametrize(
    ("strategy", "index"), [("idle_first", 1), ("memory_first", 0), ("binpack", 2), ("idle-first", 1)]
)
async def test_a_strategy_chooses_the_gpu(tmp_path: Path, strategy: str, index: int) -> None:
    async with fleet_of([uneven()], tmp_path) as fleet:
        assert await fleet.launch("--strategy", strategy) == [("a", (index,))]


async def test_spread_takes_another_node_before_an_idler_gpu(tmp_path: Path) -> None:
    a, b = two_nodes()
    for gpu in b.gpus:
        gpu.utilization_fraction = 0.9
    async with fleet_of([a, b], tmp_path) as fleet:
        assert {node for node, _ in await fleet.launch("--strategy", "idle_first", "-r", "2")} == {"a"}
        spread = await fleet.launch("--strategy", "spread", "-r", "2", name="spread")
        assert {node for node, _ in spread} == {"a", "b"}


async def test_three_replicas_on_a_gpu_count_of_two_are_two_and_one(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a", gpu_count=4)], tmp_path) as fleet:
        places = await fleet.launch("--replica", "3", "--gpu-count", "2")
        assert sorted(places.count(each) for each in set(places)) == [1, 2]


async def test_without_sharing_each_replica_has_its_gpu_and_one_more_is_refused_with_numbers(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a")], tmp_path) as fleet:
        refused = await fleet.refusal("-r", "3", "--no-allow-shared-gpu")
        assert re.search(r'"chat-2" needs [\d.]+ [MG]iB .+ and sharing is off', refused)
        assert sorted(await fleet.launch("-r", "2", "--no-allow-shared-gpu")) == [("a", (0,)), ("a", (1,))]


async def test_gangs_of_two_are_whole_and_spread_over_nodes(tmp_path: Path) -> None:
    async with fleet_of(two_nodes(8), tmp_path) as fleet:
        places = await fleet.launch("-r", "4", "--n-gpu", "2")
        assert [len(set(gpus)) for _, gpus in places] == [2] * 4
        assert sorted(node for node, _ in places) == ["a", "a", "b", "b"]
        taken = [(node, gpu) for node, gpus in places for gpu in gpus]
        assert len(set(taken)) == 8


async def test_no_gpu_means_the_processors(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a")], tmp_path) as fleet:
        assert await fleet.launch("--n-gpu", "none") == [("a", ())]
        assert await fleet.launch("--n-gpu", "auto", name="auto") == [("a", (0,))]


@pytest.mark.parametrize(
    ("flags", "places"),
    [
        (("--gpu-idx", "1"), {("a", (1,)), ("b", (1,))}),
        (("--allow-gpu", "b:0"), {("b", (0,))}),
        (("--allow-gpu", "b"), {("b", (0,)), ("b", (1,))}),
        (("--allow-gpu", "a:SIM-a-1", "--allow-gpu", "b:0"), {("a", (1,)), ("b", (0,))}),
        (("--worker-ip", "host-of-b", "--gpu-idx", "1"), {("b", (1,))}),
        (("--node-label", "zone=south"), {("b", (0,)), ("b", (1,))}),
        (("--apart", "node"), {("a", (0,)), ("b", (0,))}),
        (("--memory", "13GiB", "--allow-gpu", "a"), {("a", (0,)), ("a", (1,))}),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
async def test_two_replicas_go_where_a_flag_lets_them(
    tmp_path: Path, flags: tuple[str, ...], places: set[Place]
) -> None:
    a, b = two_nodes()
    a.labels, b.labels = {"zone": "north"}, {"zone": "south"}
    async with fleet_of([a, b], tmp_path) as fleet:
        assert set(await fleet.launch("-r", "2", *flags)) == places


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--gpu-idx", "7"), "is not among allowed_gpus (every node GPU 7)"),
        (("--node-label", "zone=west"), "lacks the label zone=west"),
        (("--apart", "node", "-r", "3"), 'is kept apart from "chat-0"'),
        (("--n-gpu", "3"), "node a has 2 of 3 such GPUs"),
        (("--memory", "30GiB"), "needs 30 GiB; GPU 0 of node a has 24 GiB available"),
        (("--swap-space", "4"), '"swap_space" is unknown to the engine torch: leave it out'),
        (("--strategy", "fastest"), '"fastest" is unknown: use one of idle_first'),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
async def test_what_no_place_is_like_is_refused_by_name(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    async with fleet_of(two_nodes(), tmp_path) as fleet:
        assert said in await fleet.refusal(*flags)


@pytest.mark.parametrize("flags", [("--tolerate", "team=search"), ("--tolerate", "team"), ("--tolerate", "*")])
async def test_a_taint_keeps_off_what_does_not_tolerate_it(tmp_path: Path, flags: tuple[str, ...]) -> None:
    agent = ScriptedAgent("a")
    agent.taints = [node_pb2.Taint(key="team", value="search")]
    async with fleet_of([agent], tmp_path) as fleet:
        assert "team=search" in await fleet.refusal()
        assert "team=search" in await fleet.refusal("--tolerate", "team=other")
        assert await fleet.launch(*flags) == [("a", (0,))]


async def test_apart_from_others_by_their_labels(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a")], tmp_path) as fleet:
        assert await fleet.launch("--label", "team=x", name="first") == [("a", (0,))]
        places = await fleet.launch("-r", "2", "--apart", "gpu:team=x", name="second")
        assert places == [("a", (1,)), ("a", (1,))]
        # It holds the other way round too: what comes later keeps away from those that keep away from it.
        assert await fleet.launch("--label", "team=x", name="third") == [("a", (0,))]


async def test_apart_on_gpus_is_one_replica_on_each(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a", gpu_count=3)], tmp_path) as fleet:
        assert sorted(await fleet.launch("-r", "3", "--apart", "gpu")) == [("a", (0,)), ("a", (1,)), ("a", (2,))]


async def test_labels_of_a_deployment_are_shown(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a")], tmp_path) as fleet:
        await fleet.launch("--label", "team=search", "--label", "tier=1")
        assert dict((await fleet.plane.get()).labels) == {"team": "search", "tier": "1"}


async def test_a_share_of_a_gpu_is_what_a_replica_has(tmp_path: Path) -> None:
    async with fleet_of([ScriptedAgent("a")], tmp_path) as fleet:
        assert "of 3 replicas" in await fleet.refusal("-r", "3", "--memory-fraction", "0.6")
        places = await fleet.launch("-r", "2", "--memory-fraction", "0.6")
        assert sorted(places) == [("a", (0,)), ("a", (1,))]
        reserved = {each.reserved_memory_bytes for each in await fleet.plane.replicas("chat")}
        assert reserved == {24 * GIB * 6 // 10}


async def test_auto_takes_what_fits_where_the_whole_does_not(tmp_path: Path) -> None:
    auto = ("--max-model-len", "auto", "--kv-cache-memory", "auto")
    async with fleet_of([ScriptedAgent("a")], tmp_path / "ample") as fleet:
        await fleet.launch(*auto)
        ample = await fleet.plane.get()
        assert ample.computed_options.max_model_len == 2048
    need = ample.memory_need
    small = ScriptedAgent("a", gpu_count=1, gpu_bytes=need.weight_bytes + need.overhead_bytes + (4 << 20))
    async with fleet_of([small], tmp_path / "scarce") as fleet:
        assert "available" in await fleet.refusal()
        assert await fleet.launch(*auto) == [("a", (0,))]
        scarce = await fleet.plane.get()
        assert 16 <= scarce.computed_options.max_model_len < 2048
        assert scarce.memory_need.kv_cache_bytes <= 4 << 20
