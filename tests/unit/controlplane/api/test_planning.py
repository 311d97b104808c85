"""What Plan says is what is done, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane import wire
from controlplane.api.planning import MOST_NODE_BYTES, planned
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import PlacementPolicy
from tests.support.frozen import CALLS, FLEETS, NAMES, Call, Cluster
from tests.support.plane import Plane, plane_on, reason_of, refused, wanted
from tests.support.records import deployment_record
from tests.support.scripted_agent import GIB, ScriptedAgent

PLACED, PASSED, REFUSED = (
    pb.DEVICE_VERDICT_KIND_PLACED,
    pb.DEVICE_VERDICT_KIND_PASSED,
    pb.DEVICE_VERDICT_KIND_REFUSED,
)


async def plan_of(plane: Plane, **request: Any) -> pb.PlanDeploymentResponse:
    answer: pb.PlanDeploymentResponse = await plane.deployments.PlanDeployment(pb.PlanDeploymentRequest(**request))
    return answer


def kinds(answer: pb.PlanDeploymentResponse) -> dict[tuple[str, int], pb.DeviceVerdictKind]:
    return {
        (node.node, device.gpu_index): device.kind
        for node in answer.nodes
        for device in node.devices
        if device.gpu_uuid
    }


@settings(max_examples=100, deadline=None)
@given(FLEETS, CALLS, st.sampled_from(NAMES), st.integers(0, 3), st.sampled_from([1, 2, 3, 5, 8]))
def test_what_a_plan_says_is_what_the_reconciler_then_does(
    gpus: Sequence[Sequence[tuple[int, float]]], calls: Sequence[Call], name: str, replica_count: int, need_gib: int
) -> None:
    async def play() -> None:
        cluster = Cluster(gpus)
        await cluster.play(calls)
        stored = cluster.store.entries.get(wire.deployment_key(name))
        record = deployment_record(name, replica_count, need_gib=need_gib)
        if stored is not None:
            record = type(record).FromString(stored.value)
            record.deployment.replica_count = replica_count
        asked = wire.wanted(record)
        assert asked is not None
        outlook = await cluster.outlook()
        answer = planned(record, asked, outlook, cluster.registry.nodes(), await cluster.intent())
        cluster.store.put(wire.deployment_key(name), record.SerializeToString())
        _, done = await cluster.planned()
        own = {
            each.index: (wire.NODE.format(each.node), tuple(each.gpus))
            for each in done.placements
            if each.deployment == name and not each.is_stopping
        }
        said = {each.index: (each.node, tuple(gpu.uuid for gpu in each.gpus)) for each in answer.replicas if each.node}
        assert said == own
        waiting = {each.index: each.reason for each in done.unplaced if each.deployment == name}
        assert {each.index: each.message for each in answer.replicas if not each.node} == waiting
        fresh = sum(not each.is_standing for each in answer.replicas if each.node)
        assert sum(device.placed_count for node in answer.nodes for device in node.devices) == fresh

    asyncio.run(play())


async def test_every_gpu_has_its_verdict_with_the_arithmetic_or_the_score(plane: Plane) -> None:
    small = ScriptedAgent("a", gpu_count=1, gpu_bytes=GIB // 4)
    large = ScriptedAgent("b", gpu_count=2)
    large.gpus[1].utilization_fraction = 0.5
    async with small.joined(plane.address), large.joined(plane.address):
        answer = await plan_of(plane, deployment=wanted("chat", replica_count=1))
        assert answer.fits
        assert kinds(answer) == {("nodes/a", 0): REFUSED, ("nodes/b", 0): PLACED, ("nodes/b", 1): PASSED}
        refused_, placed, passed = (device for node in answer.nodes for device in node.devices)
        assert "GPU 0 of node a has 256 MiB available" in refused_.message
        assert (refused_.available_memory_bytes, refused_.total_memory_bytes) == (GIB // 4, GIB // 4)
        assert refused_.needed_memory_bytes == answer.memory_need.total_bytes > GIB // 4
        assert (placed.placed_count, placed.message) == (1, "")
        assert "others rank before it" in passed.message
        bands = {device.gpu_index: device.score[0] for device in (placed, passed)}
        assert {index: (term.name, term.value) for index, term in bands.items()} == {
            0: ("utilization_band", 0.0),
            1: ("utilization_band", 10.0),
        }
        with pytest.raises(Exception, match="does not exist"):
            await plane.get("chat")


async def test_what_does_not_fit_is_an_answer_and_gpus_that_are_imagined_can_cure_it(plane: Plane) -> None:
    policy = PlacementPolicy(memory_bytes=20 * GIB)
    async with ScriptedAgent("a", gpu_count=1).joined(plane.address):
        asked = wanted("chat", replica_count=3, placement=policy)
        answer = await plan_of(plane, deployment=asked)
        assert not answer.fits
        assert [bool(each.node) for each in answer.replicas] == [True, False, False]
        assert "add a node, or lower memory_bytes" in answer.replicas[2].message
        more = [
            pb.ImaginedGpus(node="nodes/a", gpu_count=1),
            pb.ImaginedGpus(node="nodes/new", gpu_count=1, memory_bytes=40 * GIB),
        ]
        cured = await plan_of(plane, deployment=asked, imagined_gpus=more)
        assert cured.fits
        assert {each.node for each in cured.replicas} == {"nodes/a", "nodes/new"}
        assert {node.node: node.is_imagined for node in cured.nodes} == {"nodes/a": False, "nodes/new": True}


async def test_a_plan_for_one_that_exists_says_what_stands_and_what_a_scale_would_do(plane: Plane) -> None:
    async with ScriptedAgent("a").joined(plane.address):
        await plane.create("chat", replica_count=1)
        await plane.until_replicas(lambda seen: any(each.node for each in seen.values()), "chat")
        answer = await plan_of(plane, name="deployments/chat", replica_count=2)
        assert answer.fits
        assert [each.is_standing for each in answer.replicas] == [True, False]
        assert (await plane.get("chat")).replica_count == 1


def test_an_answer_of_many_nodes_is_cut_at_its_bound_and_says_so() -> None:
    async def play() -> None:
        cluster = Cluster([])
        for number in range(150):
            agent = ScriptedAgent(f"n{number}", gpu_count=64)
            with cluster.registry.session(agent.message()) as session:
                session.record(agent.message())
        record = deployment_record("chat", 1, need_gib=5)
        record.deployment.placement.strategy = "idle_first"
        asked = wire.wanted(record)
        assert asked is not None
        answer = planned(record, asked, await cluster.outlook(), cluster.registry.nodes(), await cluster.intent())
        assert answer.ByteSize() < MOST_NODE_BYTES + 10_000
        assert len(answer.nodes) + answer.omitted_node_count == 150
        assert answer.omitted_node_count > 0
        assert answer.nodes[0].node == answer.replicas[0].node

    asyncio.run(play())


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({}, "FIELD_INVALID", "subject"),
        ({"name": "chat"}, "FIELD_INVALID", "name"),
        ({"name": "deployments/none"}, "DEPLOYMENT_NOT_FOUND", ""),
        ({"deployment": wanted("Bad")}, "FIELD_INVALID", "deployment.name"),
        ({"deployment": wanted("chat"), "replica_count": 2}, "FIELD_INVALID", "replica_count"),
        ({"name": "deployments/chat", "replica_count": 1001}, "FIELD_INVALID", "replica_count"),
        ({"deployment": wanted("there")}, "DEPLOYMENT_EXISTS", ""),
        (
            {"deployment": wanted("chat"), "imagined_gpus": [pb.ImaginedGpus(node="a", gpu_count=1)]},
            "FIELD_INVALID",
            "imagined_gpus[0].node",
        ),
        (
            {"deployment": wanted("chat"), "imagined_gpus": [pb.ImaginedGpus(node="nodes/a", gpu_count=65)]},
            "FIELD_INVALID",
            "imagined_gpus[0].gpu_count",
        ),
        (
            {
                "deployment": wanted("chat"),
                "imagined_gpus": [pb.ImaginedGpus(node=f"nodes/n{n}", gpu_count=64) for n in range(17)],
            },
            "FIELD_INVALID",
            "imagined_gpus",
        ),
    ],
    ids=["nothing", "no name", "unknown", "bad name", "two counts", "too many", "taken", "bad node", "65", "1088"],
)
async def test_what_cannot_be_planned_is_refused_by_name(
    plane: Plane, request_: dict[str, Any], reason: str, field: str
) -> None:
    async with ScriptedAgent("a").joined(plane.address):
        await plane.create("there")
        error = await refused(plane.deployments.PlanDeployment(pb.PlanDeploymentRequest(**request_)))
        assert reason_of(error) == reason
        assert [each.field for each in error.fields][:1] == ([field] if field else [])


async def test_without_a_node_nothing_is_planned(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        error = await refused(plane.deployments.PlanDeployment(pb.PlanDeploymentRequest(deployment=wanted("chat"))))
        assert reason_of(error) == "NO_NODE"
