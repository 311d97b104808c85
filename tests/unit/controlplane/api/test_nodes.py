"""NodeService: what is shown of nodes, and how a watch goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from roundhouse.internal.v1.agent_service_pb2 import Order
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import InvalidArgument, NotFound
from roundhouse.v1 import deployment_pb2, node_pb2, node_service_pb2_grpc
from roundhouse.v1 import node_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import PlacementPolicy
from tests.support.plane import Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import GIB, ScriptedAgent


async def node(plane: Plane, name: str = "one") -> node_pb2.Node:
    found: pb.GetNodeResponse = await plane.nodes.GetNode(pb.GetNodeRequest(name=f"nodes/{name}"))
    return found.node


def conditions(shown: node_pb2.Node) -> dict[str, int]:
    return {each.type: each.status for each in shown.conditions}


async def test_a_node_is_shown_as_it_reports_with_what_the_ledger_adds(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        need = 3 * GIB
        await plane.create(replica_count=3, placement=PlacementPolicy(gpu_count=2, memory_bytes=need))
        await plane.until(lambda all_: any(each.ready_replica_count == 3 for each in all_.values()))
        shown = await node(plane)
        assert (shown.uid, shown.hostname, shown.state) == ("uid-of-one", "host-of-one", node_pb2.NODE_STATE_READY)
        assert conditions(shown) == {"Reporting": 1, "Assignable": 1, "GpusHealthy": 1, "Placeable": 1}
        assert list(shown.replicas) == [f"deployments/chat/replicas/{index}" for index in range(3)]
        assert sorted(gpu.reserved_memory_bytes for gpu in shown.gpus) == [need, 2 * need]
        assert all(
            gpu.available_memory_bytes == gpu.total_memory_bytes - gpu.reserved_memory_bytes for gpu in shown.gpus
        )
        assert sorted(len(gpu.replicas) for gpu in shown.gpus) == [1, 2]
        assert shown.host.reserved_memory_bytes == 3 * need  # engines of simulated GPUs compute on the host


async def test_a_cpu_node_reserves_in_its_own_memory(plane: Plane) -> None:
    async with ScriptedAgent("cpu", gpu_count=0).joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=GIB))
        await plane.until(lambda all_: any(each.ready_replica_count == 1 for each in all_.values()))
        shown = await node(plane, "cpu")
        assert (list(shown.gpus), shown.host.reserved_memory_bytes) == ([], GIB)


async def test_memory_of_a_loaded_engine_counts_once_on_its_host(plane: Plane) -> None:
    agent = ScriptedAgent("cpu", gpu_count=0)  # of 24 GiB, 4 are in use
    async with agent.joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=3 * GIB))
        await plane.until(lambda all_: any(each.ready_replica_count == 1 for each in all_.values()))
        shown = await node(plane, "cpu")
        assert (shown.host.foreign_memory_bytes, shown.host.placeable_memory_bytes) == (4 * GIB, 17 * GIB)
        agent.become(deployment_pb2.REPLICA_STATE_READY, measured_memory_bytes=2 * GIB)
        async with plane.watching(plane.nodes.WatchNodes(pb.WatchNodesRequest())) as events:
            async for event in events:
                if event.changed.host.foreign_memory_bytes == 2 * GIB:
                    break
        shown = await node(plane, "cpu")
        assert shown.host.placeable_memory_bytes == 19 * GIB  # 24 - 2 that are not ours - 3 that are reserved


async def test_what_a_node_says_of_itself_is_shown(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    agent.driver_version = "595.45.04"
    agent.taints = [node_pb2.Taint(key="spot"), node_pb2.Taint(key="owner", value="me")]
    gpu = agent.gpus[0]
    gpu.processes.add(pid=7, name="python", used_memory_bytes=GIB)
    gpu.links.add(peer_index=1, kind=node_pb2.GPU_LINK_KIND_NVLINK)
    gpu.nvlink_island = 0
    async with agent.joined(plane.address):
        shown = await node(plane)
        assert shown.driver_version == "595.45.04"
        assert [(each.key, each.value) for each in shown.taints] == [("owner", "me"), ("spot", "")]
        assert (list(shown.gpus[0].processes), list(shown.gpus[0].links)) == (list(gpu.processes), list(gpu.links))
        assert shown.gpus[0].nvlink_island == 0


async def test_a_gpu_that_fails_is_said_to(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        agent.gpus[1].state = node_pb2.GPU_STATE_FAILED
        agent.gpus[1].state_message = "fell off the bus"
        agent.report()
        call = plane.nodes.WatchNodes(pb.WatchNodesRequest())
        async with plane.watching(call) as events:
            async for event in events:
                failed = [each for each in event.changed.conditions if each.type == "GpusHealthy" and each.status == 2]
                if failed:
                    assert failed[0].message == "GPU 1 has failed: fell off the bus"
                    break


async def test_what_is_unknown_is_not_found(plane: Plane) -> None:
    async def first() -> Any:
        return await plane.nodes.WatchNodes(pb.WatchNodesRequest(name="nodes/x")).read()

    for call in (plane.nodes.GetNode(pb.GetNodeRequest(name="nodes/x")), first()):
        error = await refused(call)
        assert isinstance(error, NotFound)
        assert reason_of(error) == "NODE_NOT_FOUND"


@pytest.mark.parametrize("name", ["", "x", "nodes/", "nodes/A", "nodes/a/gpus/0"])
async def test_a_malformed_name_is_refused(plane: Plane, name: str) -> None:
    assert isinstance(await refused(plane.nodes.GetNode(pb.GetNodeRequest(name=name))), InvalidArgument)


async def test_a_watch_begins_with_all_and_follows_every_report(plane: Plane) -> None:
    one, two = ScriptedAgent("one"), ScriptedAgent("two")
    async with one.joined(plane.address):
        call = plane.nodes.WatchNodes(pb.WatchNodesRequest())
        async with plane.watching(call) as events:
            assert (await anext(events)).changed.name == "nodes/one"
            assert (await anext(events)).HasField("bookmark")
            async with two.joined(plane.address):
                two.gpus[0].utilization_fraction = 0.5
                two.report()
                async for event in events:
                    if event.changed.name == "nodes/two" and event.changed.gpus[0].utilization_fraction == 0.5:
                        break


async def watts_in(events: AsyncIterator[pb.NodeEvent]) -> AsyncIterator[float]:
    """The power of the first GPU of whatever node is shown."""
    async for event in events:
        if event.HasField("changed"):
            yield event.changed.gpus[0].power_watts


@pytest.mark.slow
async def test_a_reader_that_is_behind_slows_nobody_and_gets_the_newest(plane: Plane) -> None:
    agent, count = ScriptedAgent("one"), 200
    agent.period_s = 60.0
    agent.gpus[0].state_message = "x" * 20_000  # so that nothing between the two holds many of them
    # Without a probe the window of the reader stays as small as it begins: what it holds for us is little.
    channel = open_channel(plane.address, options=[("grpc.http2.bdp_probe", 0)])
    async with agent.joined(plane.address), channel:
        call = node_service_pb2_grpc.NodeServiceStub(channel).WatchNodes(pb.WatchNodesRequest())
        async with plane.watching(call) as late:
            assert (await anext(late)).changed.name == "nodes/one"
            async with plane.watching(plane.nodes.WatchNodes(pb.WatchNodesRequest())) as prompt:
                shown = watts_in(prompt)
                for number in range(1, count + 1):
                    agent.gpus[0].power_watts = number
                    agent.report()
                    while await anext(shown) != number:
                        continue
            held = []
            async for watts in watts_in(late):
                held.append(watts)
                if watts == count:
                    break
            assert held == sorted(held)
            assert len(held) < count / 10


async def test_a_watch_of_one_node_shows_no_other(plane: Plane) -> None:
    one, two = ScriptedAgent("one"), ScriptedAgent("two")
    async with one.joined(plane.address), two.joined(plane.address):
        call = plane.nodes.WatchNodes(pb.WatchNodesRequest(name="nodes/two"))
        async with plane.watching(call) as events:
            assert (await anext(events)).changed.name == "nodes/two"
            assert (await anext(events)).HasField("bookmark")
            one.report()
            two.gpus[0].power_watts = 77.0
            two.report()
            async for event in events:
                assert event.changed.name == "nodes/two"
                if event.changed.gpus[0].power_watts == 77.0:
                    break


async def test_a_silent_node_is_lost_and_its_replicas_are_not_ready(tmp_path: Path) -> None:
    agent = ScriptedAgent("one")
    agent.period_s = 0.05
    async with plane_on(tmp_path / "state", lease_s=0.5) as plane:
        async with agent.joined(plane.address):
            await plane.create()
            await plane.until_replicas(lambda all_: any(each.engine_pid for each in all_.values()))
        assert agent.engines  # they go on, only the agent is silent
        lost = await plane.until(
            lambda all_: any(each.ready_replica_count == 0 and each.conditions[1].status == 2 for each in all_.values())
        )
        assert lost["deployments/chat"].conditions[0].status == 1  # its place is kept
        [replica] = (
            await plane.until_replicas(lambda all_: any("does not report" in each.message for each in all_.values()))
        ).values()
        assert {each.type: each.status for each in replica.conditions}["Reported"] == 2
        shown = await node(plane)
        assert shown.state == node_pb2.NODE_STATE_LOST
        assert conditions(shown)["Reporting"] == 2


async def test_a_node_that_obeys_another_cluster_says_so_and_nothing_is_placed_there(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    agent.other_order = Order(cluster_id="other", term=9, generation=1)
    async with agent.joined(plane.address):
        shown = await node(plane)
        assert shown.state == node_pb2.NODE_STATE_FOREIGN
        assert (conditions(shown)["Reporting"], conditions(shown)["Assignable"]) == (1, 2)
        error = await refused(plane.create())
        assert reason_of(error) == "NO_NODE"
        assert 'node "one" belongs to cluster other, not to this one' in error.message
        agent.other_order = None
        agent.report()
        async with plane.watching(plane.nodes.WatchNodes(pb.WatchNodesRequest())) as events:
            async for event in events:
                if event.changed.state == node_pb2.NODE_STATE_READY:
                    break
        await plane.create()


async def test_a_node_that_was_not_heard_of_since_the_start_is_unknown(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state") as plane, ScriptedAgent("one").joined(plane.address):
        await plane.create()
        await plane.until_replicas(lambda all_: any(each.node for each in all_.values()))
    async with plane_on(tmp_path / "state") as plane:
        shown = await node(plane)
        assert shown.state == node_pb2.NODE_STATE_UNKNOWN
        assert list(shown.replicas) == ["deployments/chat/replicas/0"]
        [replica] = await plane.replicas()
        assert {each.type: each.status for each in replica.conditions}["Reported"] == 3
