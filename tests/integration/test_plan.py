"""`roundhouse plan` against a real control plane: what it shows, and what launching then does."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.commands import roundhouse
from tests.support.plane import plane_on
from tests.support.scripted_agent import GIB, ScriptedAgent


async def test_a_plan_shows_every_gpu_and_a_launch_then_goes_where_it_said(tmp_path: Path) -> None:
    small, large = ScriptedAgent("a", gpu_count=1, gpu_bytes=GIB // 4), ScriptedAgent("b", gpu_count=2)
    async with plane_on(tmp_path) as plane, small.joined(plane.address), large.joined(plane.address):
        flags = ("demo", "--replica", "3", "--gpu-count", "2")
        ended = await roundhouse(plane.address, "plan", *flags)
        assert (ended.status, ended.err) == (0, "")
        header, *rows = ended.out.splitlines()
        assert header.split() == ["NODE", "GPU", "VERDICT", "TOTAL", "OTHERS", "HELD", "AVAILABLE", "WHY"]
        assert [row.split()[:3] for row in rows[:3]] == [
            ["a", "0", "refused"],
            ["b", "0", "placed"],
            ["b", "1", "placed"],
        ]
        assert "GPU 0 of node a has 256 MiB available" in rows[0]
        assert "utilization_band 0" in rows[1]
        said = [row.split()[1:] for row in rows[-3:]]
        assert said == [["b,", "GPU", "0"], ["b,", "GPU", "1"], ["b,", "GPU", "0"]]
        assert (await roundhouse(plane.address, "launch", *flags, "--no-wait")).status == 0
        seen = await plane.until_replicas(
            lambda each: len(each) == 3 and all(one.node for one in each.values()), "demo"
        )
        done = [seen[name] for name in sorted(seen)]
        assert [(each.node, each.gpus[0].index) for each in done] == [("nodes/b", 0), ("nodes/b", 1), ("nodes/b", 0)]


async def test_what_does_not_fit_ends_with_1_and_imagined_gpus_show_what_would_help(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("a", gpu_count=1).joined(plane.address):
        flags = ("demo", "--replica", "2", "--memory", "20GiB", "--json")
        ended = await roundhouse(plane.address, "plan", *flags)
        told = json.loads(ended.out)
        assert (ended.status, told["fits"]) == (1, False)
        assert "add a node, or lower memory_bytes" in told["replicas"][1]["message"]
        cured = await roundhouse(plane.address, "plan", *flags, "--add-gpus", "new:1x40GiB")
        assert (cured.status, json.loads(cured.out)["replicas"][0]["node"]) == (0, "nodes/a")
        wrong = await roundhouse(plane.address, "plan", *flags, "--add-gpus", "new")
        assert wrong.status == 2
        assert "write NODE:COUNT or NODE:COUNTxSIZE" in wrong.err


async def test_one_that_exists_can_be_planned_with_another_count(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("a").joined(plane.address):
        assert (await roundhouse(plane.address, "launch", "demo", "--no-wait")).status == 0
        await plane.until_replicas(lambda each: any(one.node for one in each.values()), "demo")
        ended = await roundhouse(plane.address, "plan", "--existing", "demo", "--replica", "2")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.splitlines()[-2].endswith("(stands)")
        assert (await plane.get("demo")).replica_count == 1


async def test_an_endpoint_is_where_it_is_planned(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("a").joined(plane.address):
        for url in (plane.address, f"http://{plane.address}/"):
            ended = await roundhouse("127.0.0.1:1", "plan", "-e", url, "-n", "demo", "--json")
            assert (ended.status, json.loads(ended.out)["fits"]) == (0, True)
