"""What a deployment says of its GPUs and nodes is kept, holds, and is refused with the numbers where it cannot."""

from __future__ import annotations

from collections import Counter

from roundhouse.kit.errors import NoCapacity, NotServed
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import AntiAffinity, NodeGpus, PlacementPolicy, Toleration
from roundhouse.v1.node_pb2 import Taint
from tests.support.plane import Plane, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent


async def places(plane: Plane, count: int, name: str = "chat") -> Counter[tuple[str, tuple[int, ...]]]:
    """Returns how many replicas are on each node and its GPUs once so many have a place."""
    found = await plane.until_replicas(
        lambda all_: sum(each.node != "" for each in all_.values()) == len(all_) == count, name
    )
    return Counter((each.node.removeprefix("nodes/"), tuple(gpu.index for gpu in each.gpus)) for each in found.values())


async def test_a_deployment_that_does_not_say_is_made_for_gpus_where_there_is_one_and_stays_so(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        assert (await plane.create()).placement.gpus_per_replica == 1
        assert await places(plane, 1) == {("one", (0,)): 1}


async def test_one_that_was_made_for_hosts_keeps_to_them_when_a_gpu_joins(plane: Plane) -> None:
    async with ScriptedAgent("one", gpu_count=0).joined(plane.address):
        created = await plane.create()
        assert created.placement.HasField("gpus_per_replica")
        assert created.placement.gpus_per_replica == 0
        async with ScriptedAgent("two", machine="m2").joined(plane.address):
            request = pb.ScaleDeploymentRequest(name=created.name, replica_count=2)
            await plane.deployments.ScaleDeployment(request)
            assert await places(plane, 2) == {("one", ()): 1, ("two", ()): 1}


async def test_replicas_of_several_gpus_are_placed_whole_and_spread_over_nodes(plane: Plane) -> None:
    policy = PlacementPolicy(gpus_per_replica=2)
    async with (
        ScriptedAgent("one", gpu_count=8).joined(plane.address),
        ScriptedAgent("two", gpu_count=8, machine="m2").joined(plane.address),
    ):
        await plane.create(replica_count=4, placement=policy)
        assert await places(plane, 4) == {
            ("one", (0, 1)): 1,
            ("one", (2, 3)): 1,
            ("two", (0, 1)): 1,
            ("two", (2, 3)): 1,
        }


async def test_several_gpus_are_refused_where_the_engine_would_compute_on_one_of_them(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    for gpu in agent.gpus:
        gpu.is_simulated = False
    async with agent.joined(plane.address):
        error = await refused(plane.create(placement=PlacementPolicy(gpus_per_replica=2)))
        assert isinstance(error, NotServed)
        assert "deployment.placement.gpus_per_replica: is 2, and the engine torch computes on one GPU" in str(error)


async def test_allowed_gpus_labels_and_tolerations_decide_where_replicas_go(plane: Plane) -> None:
    one, two = ScriptedAgent("one", gpu_count=4), ScriptedAgent("two", machine="m2")
    one.labels["zone"], one.taints = "x", [Taint(key="batch")]
    policy = PlacementPolicy(
        allowed_gpus=[NodeGpus(node="nodes/-", indexes=[1, 3])],
        node_labels={"zone": "x"},
        tolerations=[Toleration(key="batch")],
    )
    async with one.joined(plane.address), two.joined(plane.address):
        await plane.create(replica_count=2, placement=policy)
        assert await places(plane, 2) == {("one", (1,)): 1, ("one", (3,)): 1}
        await plane.create("plain", replica_count=1)
        assert await places(plane, 1, "plain") == {("two", (0,)): 1}


async def test_what_keeps_apart_is_refused_when_there_is_no_further_node(plane: Plane) -> None:
    policy = PlacementPolicy(anti_affinity=[AntiAffinity()])
    async with ScriptedAgent("one").joined(plane.address):
        error = await refused(plane.create(replica_count=2, placement=policy))
        assert isinstance(error, NoCapacity)
        assert reason_of(error) == "DOES_NOT_FIT"
        assert 'is kept apart from "chat-0" by anti_affinity of "chat"' in str(error)


async def test_every_strategy_can_be_named_and_decides(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        await plane.create(replica_count=2, placement=PlacementPolicy(strategy="binpack"))
        assert await places(plane, 2) == {("one", (0,)): 2}
        await plane.create("even", replica_count=2, placement=PlacementPolicy(strategy="SPREAD_LAUNCH_STRATEGY"))
        assert await places(plane, 2, "even") == {("one", (0,)): 1, ("one", (1,)): 1}
