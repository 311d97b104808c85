"""Nodes that are taken out of use, and nodes that are lost: what is asked, what is shown, and where replicas go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from roundhouse.v1 import condition_pb2, deployment_pb2, node_pb2
from roundhouse.v1 import node_service_pb2 as pb
from roundhouse.v1.condition_pb2 import Condition
from roundhouse.v1.deployment_pb2 import PlacementPolicy, Replica
from roundhouse.v1.deployment_service_pb2 import PlanDeploymentRequest
from tests.support.plane import Plane, plane_on, reason_of, refused, wanted
from tests.support.scripted_agent import GIB, ScriptedAgent

READY = deployment_pb2.REPLICA_STATE_READY


async def cordon(plane: Plane, node: str, **fields: Any) -> node_pb2.Node:
    response: pb.CordonNodeResponse = await plane.nodes.CordonNode(pb.CordonNodeRequest(name=f"nodes/{node}", **fields))
    return response.node


async def uncordon(plane: Plane, node: str, **fields: Any) -> node_pb2.Node:
    request = pb.UncordonNodeRequest(name=f"nodes/{node}", **fields)
    response: pb.UncordonNodeResponse = await plane.nodes.UncordonNode(request)
    return response.node


async def drain(plane: Plane, node: str, **fields: Any) -> node_pb2.Node:
    response: pb.DrainNodeResponse = await plane.nodes.DrainNode(pb.DrainNodeRequest(name=f"nodes/{node}", **fields))
    return response.node


async def until_node(plane: Plane, node: str, holds: Callable[[node_pb2.Node], bool]) -> node_pb2.Node:
    """Watches until something holds of a node."""
    async with plane.watching(plane.nodes.WatchNodes(pb.WatchNodesRequest(name=f"nodes/{node}"))) as events:
        async for event in events:
            if event.WhichOneof("event") == "changed" and holds(event.changed):
                changed: node_pb2.Node = event.changed
                return changed
    raise AssertionError("the watch ended")


def condition(shown: node_pb2.Node, kind: str) -> Condition:
    """Returns a condition; one of no status if there is none of the kind."""
    return next((each for each in shown.conditions if each.type == kind), Condition())


def holds(shown: node_pb2.Node, kind: str) -> bool:
    return condition(shown, kind).status == condition_pb2.CONDITION_STATUS_TRUE


def all_ready_on(node: str, count: int = 1) -> Callable[[dict[str, Replica]], bool]:
    def look(found: dict[str, Replica]) -> bool:
        places = [(each.state, each.node) for each in found.values()]
        return places == [(READY, f"nodes/{node}")] * count

    return look


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_a_cordoned_node_takes_no_new_replicas_says_so_and_keeps_those_it_has(state: Path) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        await plane.create("old")
        await plane.until_replicas(all_ready_on("one"))
        assert (await cordon(plane, "one")).is_cordoned
        shown = await until_node(plane, "one", lambda each: each.is_cordoned)
        assert (condition(shown, "Placeable").status, condition(shown, "Placeable").reason) == (2, "Cordoned")
        error = await refused(plane.create("new"))
        assert error.message.endswith("node one is cordoned: uncordon it, or add a node")
        assert reason_of(error) == "DOES_NOT_FIT"
        assert all_ready_on("one")({each.name: each for each in await plane.replicas("old")})
        assert not (await uncordon(plane, "one")).is_cordoned
        await plane.create("new")
        await plane.until_replicas(all_ready_on("one", 2))


async def test_a_plan_says_of_each_gpu_that_its_node_is_cordoned(state: Path) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        await cordon(plane, "one")
        planned = await plane.deployments.PlanDeployment(PlanDeploymentRequest(deployment=wanted()))
        assert not planned.fits
        [verdicts] = planned.nodes
        assert [each.message for each in verdicts.devices] == ["node one is cordoned"] * 2


async def test_what_is_wanted_of_a_node_outlives_the_control_plane_and_the_agent(state: Path) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        first = await drain(plane, "one", drain_grace=Duration(seconds=7), allow_unserved=True)
    async with plane_on(state) as plane:
        shown = (await plane.nodes.GetNode(pb.GetNodeRequest(name="nodes/one"))).node
        assert (shown.state, shown.is_cordoned, shown.drain) == (node_pb2.NODE_STATE_UNKNOWN, True, first.drain)
        assert (shown.drain.grace.seconds, shown.drain.allow_unserved) == (7, True)
        await uncordon(plane, "one")
        error = await refused(plane.nodes.GetNode(pb.GetNodeRequest(name="nodes/one")))
        assert reason_of(error) == "NODE_NOT_FOUND"


async def test_each_call_can_be_repeated_and_a_drain_takes_the_newest_grace(state: Path) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        await uncordon(plane, "one")
        await cordon(plane, "one")
        first = await drain(plane, "one")
        assert first.drain.grace.seconds == 30
        second = await drain(plane, "one", drain_grace=Duration(seconds=1))
        assert (second.drain.grace.seconds, second.drain.request_time) == (1, first.drain.request_time)
        assert (await cordon(plane, "one")).drain == second.drain
        assert (await cordon(plane, "one", request_id="r")) == (await cordon(plane, "one", request_id="r"))
        error = await refused(uncordon(plane, "one", request_id="r"))
        assert reason_of(error) == "MUTATION_EXISTS"
        assert not (await uncordon(plane, "one", validate_only=True)).is_cordoned
        assert (await until_node(plane, "one", lambda _: True)).is_cordoned


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(lambda plane: cordon(plane, "two"), 'node "two" does not exist', id="a_node_that_is_not"),
        pytest.param(lambda plane: uncordon(plane, "two"), 'node "two" does not exist', id="uncordoned"),
        pytest.param(lambda plane: drain(plane, "two"), 'node "two" does not exist', id="drained"),
        pytest.param(lambda plane: drain(plane, "one/gpus"), "use the form nodes/{node}", id="no_name_of_a_node"),
        pytest.param(
            lambda plane: drain(plane, "one", drain_grace=Duration(seconds=3601)), "use 0 to 3600 s", id="long_grace"
        ),
        pytest.param(lambda plane: cordon(plane, "one", request_id="\n"), "printable ASCII", id="request_id"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(state: Path, call: Any, words: str) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        assert words in (await refused(call(plane))).message


async def test_a_drained_node_is_served_from_until_the_replica_is_ready_elsewhere(state: Path) -> None:
    one, two = ScriptedAgent("one"), ScriptedAgent("two")
    async with plane_on(state) as plane, one.joined(plane.address):
        await plane.create()
        await plane.until_replicas(all_ready_on("one"))
        two.is_keen = False
        async with two.joined(plane.address):
            shown = await drain(plane, "one", drain_grace=Duration(seconds=3))
            assert shown.is_cordoned
            await two.assigned(lambda each: len(each.engines) == 1)
            [moving] = await plane.replicas()
            assert (moving.state, moving.node, moving.placement_epoch) == (READY, "nodes/one", 1)
            assert condition(await until_node(plane, "one", lambda _: True), "Drained").reason == "Draining"
            assert (await plane.get()).ready_replica_count == 1
            two.become(READY)
            stopped = await one.assigned(lambda each: any(engine.HasField("drain_grace") for engine in each.engines))
            assert [engine.drain_grace.seconds for engine in stopped.engines] == [3]
            await until_node(plane, "one", lambda each: holds(each, "Drained"))
            found = await plane.until_replicas(all_ready_on("two"))
            assert [each.placement_epoch for each in found.values()] == [2]


async def test_a_move_that_has_begun_goes_on_when_the_node_is_uncordoned(state: Path) -> None:
    one, two = ScriptedAgent("one"), ScriptedAgent("two")
    async with plane_on(state) as plane, one.joined(plane.address):
        await plane.create()
        await plane.until_replicas(all_ready_on("one"))
        two.is_keen = False
        async with two.joined(plane.address):
            await drain(plane, "one")
            await two.assigned(lambda each: len(each.engines) == 1)
            shown = await uncordon(plane, "one")
            assert (shown.is_cordoned, shown.HasField("drain")) == (False, False)
            two.become(READY)
            await plane.until_replicas(all_ready_on("two"))
            shown = await until_node(plane, "one", lambda each: not each.replicas)
            assert {each.type for each in shown.conditions} == {"Reporting", "Assignable", "GpusHealthy", "Placeable"}


async def test_what_has_no_room_elsewhere_stays_and_serves_and_the_node_says_what_is_lacking(state: Path) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        await plane.create(placement=PlacementPolicy(memory_bytes=20 * GIB))
        await plane.until_replicas(all_ready_on("one"))
        await drain(plane, "one")
        shown = await until_node(plane, "one", lambda each: condition(each, "Drained").reason == "NoRoom")
        assert condition(shown, "Drained").message == (
            '1 replica is left; chat-0 stays: node one is drained; elsewhere: replica "chat-0" needs 20 GiB; '
            "node one is cordoned: uncordon it, or add a node"
        )
        [stays] = await plane.replicas()
        assert (stays.state, stays.message.partition(";")[0]) == (READY, "node one is drained")
        async with ScriptedAgent("two").joined(plane.address):
            await plane.until_replicas(all_ready_on("two"))
            await until_node(plane, "one", lambda each: holds(each, "Drained"))


async def test_by_force_a_drain_stops_what_has_no_room_and_uncordoned_the_node_gets_it_back(state: Path) -> None:
    async with plane_on(state) as plane, ScriptedAgent("one").joined(plane.address):
        await plane.create()
        await plane.until_replicas(all_ready_on("one"))
        await drain(plane, "one", allow_unserved=True)
        await until_node(plane, "one", lambda each: holds(each, "Drained"))
        [waiting] = await plane.replicas()
        assert waiting.state == deployment_pb2.REPLICA_STATE_PENDING
        await uncordon(plane, "one")
        await plane.until_replicas(all_ready_on("one"))


async def test_a_replica_of_a_lost_node_is_served_elsewhere_and_the_older_engine_ends_when_it_is_back(
    state: Path,
) -> None:
    one, two = ScriptedAgent("one"), ScriptedAgent("two")
    async with plane_on(state, lease_s=1.5) as plane:
        async with one.joined(plane.address):
            await plane.create()
            await plane.until_replicas(all_ready_on("one"))
        async with two.joined(plane.address):
            shown = await until_node(plane, "one", lambda each: holds(each, "Evicted"))
            assert shown.state == node_pb2.NODE_STATE_LOST
            await plane.until_replicas(all_ready_on("two"))
            shown = await until_node(plane, "one", lambda _: True)
            assert (list(shown.replicas), len(shown.gpus)) == (["deployments/chat/replicas/0"], 2)
            assert sum(each.reserved_memory_bytes for each in shown.gpus) > 0  # until its agent says that it is free
            async with one.joined(plane.address):
                await until_node(plane, "one", lambda each: not each.replicas)
                assert all_ready_on("two")({each.name: each for each in await plane.replicas()})


async def test_a_node_alone_that_is_lost_keeps_its_replica_and_has_it_as_before_when_it_is_back(state: Path) -> None:
    one = ScriptedAgent("one")
    async with plane_on(state, lease_s=1.5) as plane:
        async with one.joined(plane.address):
            await plane.create()
            [before] = (await plane.until_replicas(all_ready_on("one"))).values()
        shown = await until_node(plane, "one", lambda each: bool(condition(each, "Evicted").message))
        assert "chat-0 stays: node one does not report; elsewhere" in condition(shown, "Evicted").message
        lost = await plane.until_replicas(lambda all_: any("elsewhere" in each.message for each in all_.values()))
        assert [each.state for each in lost.values()] == [deployment_pb2.REPLICA_STATE_UNKNOWN]
        async with one.joined(plane.address):
            [after] = (await plane.until_replicas(all_ready_on("one"))).values()
            assert (after.uid, after.placement_epoch, after.engine_uuid) == (before.uid, 1, before.engine_uuid)


async def test_too_many_that_vanish_together_keep_their_replicas_until_one_is_said_not_to_come_back(
    state: Path,
) -> None:
    one, two, three = ScriptedAgent("one"), ScriptedAgent("two"), ScriptedAgent("three", gpu_bytes=48 * GIB)
    async with plane_on(state, lease_s=1.5) as plane, three.joined(plane.address):
        async with one.joined(plane.address), two.joined(plane.address):
            policy = PlacementPolicy(strategy="spread", memory_bytes=20 * GIB)
            await plane.create(replica_count=3, placement=policy)
            await plane.until(lambda all_: any(each.ready_replica_count == 3 for each in all_.values()))
        for name in ("one", "two"):
            shown = await until_node(plane, name, lambda each: condition(each, "Evicted").reason == "Frozen")
            assert condition(shown, "Evicted").message.startswith("2 of 3 nodes fell silent within one lease (1.5 s)")
        assert sorted(each.state for each in await plane.replicas()) == [
            READY,
            deployment_pb2.REPLICA_STATE_UNKNOWN,
            deployment_pb2.REPLICA_STATE_UNKNOWN,
        ]
        await drain(plane, "one")
        await plane.until_replicas(all_ready_on("three", 3))
