"""Join: who may hold a session, what reports do, and in which order assignments come."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from roundhouse.internal.v1 import agent_service_pb2 as pb
from roundhouse.internal.v1 import agent_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import AlreadyExists, Conflict, InvalidArgument, NotReady
from roundhouse.v1 import deployment_pb2, node_pb2, node_service_pb2
from tests.support.plane import Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent

CHAT = "deployments/chat"
REPLICA = f"{CHAT}/replicas/0"


@contextlib.asynccontextmanager
async def raw_join(plane: Plane, *reports: pb.JoinRequest) -> AsyncIterator[Any]:
    """A session that sends these reports and leaves the rest to the test."""
    async with open_channel(plane.address) as channel:
        call = agent_service_pb2_grpc.AgentServiceStub(channel).Join()
        async with cancelling(call):
            for each in reports:
                await call.write(each)
            yield call


async def answer(call: Any) -> Any:
    """Reads until the call ends or fails."""
    while (message := await call.read()).__class__ is pb.JoinResponse:
        pass
    return message


def report(change: Callable[[pb.JoinRequest], None] = lambda _: None, node_id: str = "one") -> pb.JoinRequest:
    whole = ScriptedAgent(node_id).message()
    change(whole)
    return whole


def changed(**fields: Any) -> Callable[[pb.JoinRequest], None]:
    def change(whole: pb.JoinRequest) -> None:
        for name, value in fields.items():
            setattr(whole, name, value)

    return change


BAD_REPORTS: dict[str, tuple[Callable[[pb.JoinRequest], Any], str]] = {
    "no node id": (changed(node_id=""), "node_id"),
    "malformed node id": (changed(node_id="Node 1"), "node_id"),
    "no node uid": (changed(node_uid=""), "node_uid"),
    "no agent uid": (changed(agent_uid=""), "agent_uid"),
    "no machine id": (changed(machine_id=""), "machine_id"),
    "no facts": (lambda whole: whole.ClearField("node"), "node"),
    "GPU without UUID": (lambda whole: whole.node.gpus.add(), "node.gpus[2].uuid"),
    "GPU twice": (lambda whole: whole.node.gpus.append(whole.node.gpus[0]), "node.gpus[2].uuid"),
    "negative memory": (
        lambda whole: whole.node.gpus.append(node_pb2.Gpu(uuid="x", total_memory_bytes=-1)),
        "node.gpus[2].total_memory_bytes",
    ),
    "engine without name": (lambda whole: whole.engines.add(replica_uid="u"), "engines[0].replica"),
    "engine with a malformed name": (
        lambda whole: whole.engines.add(replica="deployments/a/replicas/x", replica_uid="u"),
        "engines[0].replica",
    ),
    "engine without uid": (lambda whole: whole.engines.add(replica=REPLICA), "engines[0].replica_uid"),
}


@pytest.mark.parametrize(("change", "field"), BAD_REPORTS.values(), ids=BAD_REPORTS)
async def test_a_malformed_first_report_is_refused(
    plane: Plane, change: Callable[[pb.JoinRequest], None], field: str
) -> None:
    async with raw_join(plane, report(change)) as call:
        error = await refused(answer(call))
        assert isinstance(error, InvalidArgument)
        assert field in [each.field for each in error.fields]


@pytest.mark.parametrize("field", ["node_id", "node_uid", "agent_uid", "machine_id"])
async def test_a_session_is_of_one_agent(plane: Plane, field: str) -> None:
    async with raw_join(plane, report(), report(changed(**{field: "another"}))) as call:
        error = await refused(answer(call))
        assert isinstance(error, InvalidArgument)
        assert [each.field for each in error.fields] == [field]


async def test_a_refusal_arrives_though_an_assignment_is_being_written(plane: Plane) -> None:
    async def bad_second_report(number: int) -> str:
        reports = (report(change, f"n{number}") for change in (lambda _: None, changed(agent_uid="another")))
        async with raw_join(plane, *reports) as call:
            return reason_of(await refused(answer(call)))

    reasons = await asyncio.gather(*(bad_second_report(number) for number in range(40)))
    assert set(reasons) == {"FIELD_INVALID"}


def absurd(whole: pb.JoinRequest) -> None:
    whole.node.gpus[0].utilization_fraction = math.nan
    for index in range(2):
        engine = whole.engines.add(replica=f"deployments/x/replicas/{index}", replica_uid=f"x{index}")
        engine.gpu_uuids.append(whole.node.gpus[0].uuid)
        engine.reserved_memory_bytes = 2**63 - 1


async def test_an_absurd_report_ends_the_call_of_its_agent_and_hurts_no_other(plane: Plane) -> None:
    async with ScriptedAgent("good").joined(plane.address), raw_join(plane, report(), report(absurd)) as bad:
        assert isinstance(await refused(answer(bad)), InvalidArgument)
        await plane.create()
        await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 1)
        listed = await plane.nodes.ListNodes(node_service_pb2.ListNodesRequest())
        assert [each.name for each in listed.nodes] == ["nodes/good", "nodes/one"]


async def test_a_state_of_a_newer_agent_is_shown_as_starting_and_gets_no_requests(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        await plane.create()
        await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 1)
        unknown: Any = 99
        agent.become(unknown)
        starting = deployment_pb2.REPLICA_STATE_STARTING
        await plane.until_replicas(lambda all_: [each.state for each in all_.values()] == [starting])
        whole = await plane.get()
        assert whole.state == deployment_pb2.DEPLOYMENT_STATE_STARTING
        assert whole.conditions[1].message == "no replica is READY: 1 STARTING"


async def test_a_call_without_a_report_is_refused(plane: Plane) -> None:
    async with raw_join(plane) as call:
        await call.done_writing()
        assert isinstance(await refused(answer(call)), InvalidArgument)


@pytest.mark.parametrize(("lowest", "newest"), [(2, 3), (0, 0)], ids=["too new", "none said"])
async def test_a_protocol_that_is_not_spoken_is_refused(plane: Plane, lowest: int, newest: int) -> None:
    versions = changed(protocol_version=newest, lowest_protocol_version=lowest)
    async with raw_join(plane, report(versions)) as call:
        error = await refused(answer(call))
        assert isinstance(error, NotReady)
        assert reason_of(error) == "PROTOCOL_UNSUPPORTED"


async def test_the_newest_common_version_is_chosen(plane: Plane) -> None:
    async with raw_join(plane, report(changed(protocol_version=9, lowest_protocol_version=1))) as call:
        assert (await call.read()).protocol_version == 1


@pytest.mark.parametrize("field", ["node_uid", "machine_id"])
async def test_a_node_id_in_use_elsewhere_is_refused(plane: Plane, field: str) -> None:
    async with ScriptedAgent("one").joined(plane.address), raw_join(plane, report(changed(**{field: "other"}))) as call:
        error = await refused(answer(call))
        assert isinstance(error, AlreadyExists)
        assert reason_of(error) == "NODE_CONNECTED"
    async with asyncio.timeout(20):  # it has left, so the id is free as soon as the server has seen that
        while True:
            async with raw_join(plane, report(changed(**{field: "other"}))) as call:
                with contextlib.suppress(grpc.RpcError):
                    assert (await call.read()).protocol_version == 1
                    break


async def test_a_second_call_of_an_agent_takes_the_place_of_the_first(plane: Plane) -> None:
    async with raw_join(plane, report()) as older:
        await older.read()
        async with ScriptedAgent("one").joined(plane.address) as newer:
            assert isinstance(await refused(answer(older)), Conflict)
            await plane.create()
            await newer.assigned(lambda each: len(each.engines) == 1)


async def test_an_agent_that_leaves_stops_nothing(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create(replica_count=2)
        await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 2)
        before = [(each.uid, each.engine_uuid) for each in await plane.replicas()]
    async with agent.joined(plane.address):
        assert [(each.uid, each.engine_uuid) for each in await plane.replicas()] == before
        assert len((await agent.assigned(lambda each: bool(each.engines))).engines) == 2


async def test_orders_grow_within_a_term_and_over_terms(tmp_path: Path) -> None:
    agent, orders = ScriptedAgent("one"), []

    def order(response: pb.JoinResponse) -> tuple[str, int, int]:
        return response.order.cluster_id, response.order.term, response.order.generation

    for _ in range(2):
        async with plane_on(tmp_path / "state") as plane, agent.joined(plane.address):
            orders.append(order(await agent.assigned(lambda _: True)))
            name = f"a{len(orders)}"
            await plane.create(name)
            told = await agent.assigned(lambda each, name=name: any(name in engine.replica for engine in each.engines))  # type: ignore[misc]
            orders.append(order(told))
            await plane.until(lambda all_: bool(all_) and all(each.ready_replica_count for each in all_.values()))
    assert len({cluster for cluster, _, _ in orders}) == 1
    assert [term for _, term, _ in orders] == [1, 1, 2, 2]
    assert orders == sorted(orders)
    assert orders[1] < orders[2]
    assert orders[1][2] == orders[2][2]  # a start alone changes no assignment


async def test_the_first_assignment_of_an_empty_store_is_empty(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        first = await agent.assigned(lambda _: True)
        assert (len(first.engines), first.order.generation) == (0, 0)


async def test_a_death_shows_its_exit_and_when_it_starts_again(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address) as agent:
        await plane.create()
        await plane.until(lambda all_: CHAT in all_ and all_[CHAT].ready_replica_count == 1)
        [engine] = agent.engines.values()
        engine.last_exit.CopyFrom(deployment_pb2.EngineExit(exit_code=3, stderr_lines=["out of memory"]))
        engine.next_start_time.FromSeconds(2_000_000_000)
        agent.become(deployment_pb2.REPLICA_STATE_FAILED, restart_count=2, is_crash_loop=True, message="exit status 3")
        seen = await plane.until_replicas(
            lambda all_: any(each.state == deployment_pb2.REPLICA_STATE_FAILED for each in all_.values())
        )
        replica = seen[REPLICA]
        assert (replica.last_exit.exit_code, list(replica.last_exit.stderr_lines)) == (3, ["out of memory"])
        assert (replica.restart_count, replica.next_start_time.seconds) == (2, 2_000_000_000)
        assert {each.type: each.status for each in replica.conditions} == {"Reported": 1, "CrashLoop": 1}
        whole = await plane.get()
        assert whole.state == deployment_pb2.DEPLOYMENT_STATE_FAILED


async def test_a_refused_replica_says_why(plane: Plane) -> None:
    agent = ScriptedAgent("one", gpu_count=1)
    agent.is_keen = False
    async with agent.joined(plane.address):
        await plane.create()
        [uid] = [each.replica_uid for each in (await agent.assigned(lambda each: bool(each.engines))).engines]
        agent.engines.clear()
        agent.refusals[uid] = "GPU 0 has 1 GiB left"
        agent.report()
        await plane.until_replicas(lambda all_: any("GPU 0 has 1 GiB left" in each.message for each in all_.values()))
