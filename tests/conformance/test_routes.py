"""Routes: which engines can be called, and which are ready. In the control plane, and in a gateway that is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane import wire
from controlplane.api.fleet import FleetApi
from controlplane.auth.told import ToldCallers
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import LEASE_S, Registry
from controlplane.fleet.routes import RouteKeeper
from controlplane.gateway.remote import RemoteRoutes
from controlplane.model import GpuUuid, NodeId, Placement, ReplicaUid, Routes
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.internal.v1 import fleet_service_pb2
from roundhouse.internal.v1.agent_service_pb2 import EngineReport
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.channel import open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import looping
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import Deployment
from tests.support.clock import FakeClock
from tests.support.scripted_agent import ScriptedAgent

CHAT = Placement("chat", "uid", 0, ReplicaUid("r"), 1, NodeId("one"), (GpuUuid("SIM-one-0"),), 5)
ENGINE = EngineReport(
    replica="deployments/chat/replicas/0",
    replica_uid="r",
    placement_epoch=1,
    state=deployment_pb2.REPLICA_STATE_READY,
    engine_uuid="e",
    engine_key=b"key",
    address="127.0.0.1:1",
    load=deployment_pb2.EngineLoad(running_count=2, waiting_count=3, max_running_count=8, kv_token_count=900),
)


class Fleet:
    """One deployment, one node, and the routes that come of them."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.clock, self.agent = store, FakeClock(), ScriptedAgent("one")
        self.registry, self.intent = Registry(self.clock, "cluster"), Intent(store)
        self.keeper = RouteKeeper(self.intent, self.registry)
        self.routes = self.keeper.routes  # as those see them who are tested

    async def want(
        self, *placements: Placement, is_deleting: bool = False, uid: str = "uid", routing_policy: str = ""
    ) -> None:
        """Stores the deployment and its placements."""
        wanted = Deployment(name="deployments/chat", uid=uid, routing_policy=routing_policy)
        record = DeploymentRecord(deployment=wanted)
        if is_deleting:
            record.deployment.delete_time.FromSeconds(1)
        puts = {wire.deployment_key("chat"): record.SerializeToString()}
        puts |= {wire.placement_key(each): wire.placement_record(each).SerializeToString() for each in placements}
        await self.store.commit([], puts)

    def report(self, **fields: Any) -> None:
        """Records what the node says of the engine."""
        engine = EngineReport()
        engine.CopyFrom(ENGINE)
        for name, value in fields.items():
            if name == "load":
                engine.ClearField("load")
                if value is not None:
                    engine.load.CopyFrom(value)
            else:
                setattr(engine, name, value)
        self.agent.engines["r"] = engine
        first = self.agent.message()
        with self.registry.session(first) as session:
            session.record(first)

    async def until(self, holds: Callable[[Routes], bool]) -> Routes:
        """Waits until something holds of the routes."""
        async with asyncio.timeout(20):
            async for routes in self.routes.watch():
                if holds(routes):
                    return routes
        raise AssertionError("a watch never ends")


@contextlib.asynccontextmanager
async def told_to_a_gateway(routes: Latest[Routes]) -> AsyncIterator[Latest[Routes]]:
    """Serves routes, and gives them as they arrive at the other end."""
    service = Service(fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"], FleetApi(routes))
    async with (
        serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving,
        open_channel(serving.address) as channel,
    ):
        callers = ToldCallers(FakeClock(), lambda: True)
        remote = RemoteRoutes(channel, callers, gateway_id="g", random=lambda: 0.0, now_s=time.monotonic)
        async with looping({"remote routes": remote.run}):
            yield remote.routes


@pytest.fixture(params=["local", "remote"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_sqlite(tmp_path / "store") as store, contextlib.AsyncExitStack() as stack:
        it = Fleet(store)
        await stack.enter_async_context(it.intent.kept())
        if request.param == "remote":
            it.routes = await stack.enter_async_context(told_to_a_gateway(it.keeper.routes))
        await stack.enter_async_context(looping({"routes": it.keeper.run}))
        yield it


async def test_nothing_is_current_before_the_store_was_looked_at(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store") as store:
        keeper = Fleet(store).keeper
        assert not keeper.routes.get().is_current


async def test_where_nothing_is_wanted_nothing_is_current_knowledge(fleet: Fleet) -> None:
    assert (await fleet.until(lambda routes: routes.is_current)).replicas == {}


async def test_a_ready_engine_is_a_ready_route(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    assert (await fleet.until(lambda routes: "chat" in routes.replicas)).replicas == {"chat": ()}
    fleet.report()
    [route] = (await fleet.until(lambda routes: bool(routes.replicas["chat"]))).replicas["chat"]
    assert (route.address, route.engine_uuid, route.engine_key, route.is_ready) == ("127.0.0.1:1", "e", b"key", True)
    assert (route.running_count, route.waiting_count, route.index, route.node) == (2, 3, 0, "one")
    assert (route.max_running_count, route.kv_token_count) == (8, 900)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": deployment_pb2.REPLICA_STATE_STARTING},
        {"state": deployment_pb2.REPLICA_STATE_DRAINING},
        {"placement_epoch": 2},
    ],
    ids=["starting", "draining", "of another epoch"],
)
async def test_an_engine_that_takes_no_requests_can_still_be_asked_to_cancel(
    fleet: Fleet, fields: dict[str, object]
) -> None:
    await fleet.want(CHAT)
    fleet.report(**fields)
    [route] = (await fleet.until(lambda routes: bool(routes.replicas.get("chat")))).replicas["chat"]
    assert not route.is_ready


async def test_of_two_engines_of_a_replica_the_newest_that_is_ready_is_picked(fleet: Fleet) -> None:
    newer = replace(CHAT, replica_uid=ReplicaUid("s"), epoch=2)
    await fleet.want(CHAT, newer)

    def picked(routes: Routes) -> list[tuple[int, bool]]:
        return sorted((each.epoch, each.is_ready) for each in routes.replicas.get("chat", ()))

    def report_newer(state: deployment_pb2.ReplicaState) -> None:
        engine = EngineReport()
        engine.CopyFrom(ENGINE)
        engine.replica_uid, engine.placement_epoch, engine.engine_uuid, engine.state = "s", 2, "f", state
        fleet.agent.engines["s"] = engine
        fleet.report()

    report_newer(deployment_pb2.REPLICA_STATE_STARTING)
    await fleet.until(lambda routes: picked(routes) == [(1, True), (2, False)])
    report_newer(deployment_pb2.REPLICA_STATE_READY)
    await fleet.until(lambda routes: picked(routes) == [(1, False), (2, True)])


async def test_a_replica_that_is_to_stop_is_not_picked(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    fleet.report()
    await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    await fleet.want(replace(CHAT, is_stopping=True))
    await fleet.until(lambda routes: not routes.replicas["chat"][0].is_ready)


@pytest.mark.parametrize("field", ["address", "engine_uuid"])
async def test_an_engine_without_an_address_or_identity_is_no_route(fleet: Fleet, field: str) -> None:
    await fleet.want(CHAT)
    fleet.report()
    await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    fleet.report(**{field: ""})
    await fleet.until(lambda routes: routes.replicas["chat"] == ())


async def test_the_engines_of_a_lost_node_are_not_ready(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    fleet.report()
    await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    fleet.clock.advance(LEASE_S + 1)
    fleet.registry.expire()
    await fleet.until(lambda routes: not routes.replicas["chat"][0].is_ready)


async def test_a_deployment_that_is_being_deleted_is_known_as_such_until_it_is_gone(fleet: Fleet) -> None:
    await fleet.want(CHAT, is_deleting=True)
    await fleet.until(lambda routes: routes.deleting == {"chat"})
    await fleet.store.commit([], {}, [wire.deployment_key("chat")])
    assert (await fleet.until(lambda routes: "chat" not in routes.replicas)).deleting == frozenset()


async def test_placements_of_an_earlier_deployment_of_that_name_are_not_routed_to(fleet: Fleet) -> None:
    fleet.report()
    await fleet.want(CHAT, uid="a later one")
    assert (await fleet.until(lambda routes: "chat" in routes.replicas)).replicas == {"chat": ()}


async def test_a_placed_replica_whose_node_was_never_heard_of_is_silent_until_it_reports(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    await fleet.until(lambda routes: routes.silent == {"chat": {CHAT.replica_uid: 0}})
    fleet.report()
    assert (await fleet.until(lambda routes: bool(routes.replicas["chat"]))).silent == {}


async def test_a_route_tells_the_fingerprint_of_its_engine_and_roughly_how_full_its_cache_is(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    fleet.report(fingerprint="f", load=deployment_pb2.EngineLoad(free_block_count=24, total_block_count=100))
    routes = await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    [route] = routes.replicas["chat"]
    assert (route.fingerprint, route.used_block_eighths, route.is_stale) == ("f", 6, False)


async def test_a_cache_that_fills_a_little_is_not_told(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    fleet.report(load=deployment_pb2.EngineLoad(free_block_count=99, total_block_count=100))
    before = await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    fleet.report(load=deployment_pb2.EngineLoad(free_block_count=90, total_block_count=100))
    await fleet.want(CHAT, is_deleting=True)  # told after that, had there been anything to tell
    after = await fleet.until(lambda routes: "chat" in routes.deleting)
    assert after.replicas == before.replicas


async def test_an_engine_that_does_not_say_how_busy_it_is_has_a_stale_load(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    fleet.report(load=None)
    routes = await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    assert [(each.is_ready, each.is_stale) for each in routes.replicas["chat"]] == [(True, True)]


async def test_a_deployment_is_routed_as_it_says_and_else_as_the_cluster_does(fleet: Fleet) -> None:
    await fleet.want(routing_policy="round_robin")
    await fleet.until(lambda routes: routes.policies == {"chat": "round_robin"})
    await fleet.want()
    await fleet.until(lambda routes: "chat" in routes.replicas and not routes.policies)


async def test_the_cluster_s_way_of_routing_holds_for_those_that_do_not_say(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store") as store:
        fleet = Fleet(store)
        fleet.keeper = RouteKeeper(fleet.intent, fleet.registry, "least_loaded")
        fleet.routes = fleet.keeper.routes
        async with fleet.intent.kept(), looping({"routes": fleet.keeper.run}):
            await fleet.want()
            await fleet.until(lambda routes: routes.policies == {"chat": "least_loaded"})
            await fleet.want(routing_policy="power_of_two")
            await fleet.until(lambda routes: "chat" in routes.replicas and not routes.policies)


async def test_how_many_gateways_there_are_stays_known_when_routes_change(fleet: Fleet) -> None:
    fleet.keeper.count_gateways(3)
    await fleet.want(CHAT)
    fleet.report()
    routes = await fleet.until(lambda routes: bool(routes.replicas.get("chat")))
    assert routes.gateway_count == 3


async def test_of_many_changes_the_last_arrives(fleet: Fleet) -> None:
    await fleet.want(CHAT)
    for count in range(1, 200):
        fleet.report(load=deployment_pb2.EngineLoad(running_count=count))
        await asyncio.sleep(0)
    await fleet.until(lambda routes: any(each.running_count == 199 for each in routes.replicas.get("chat", ())))


async def test_deployments_beside_one_another_are_told_apart(fleet: Fleet) -> None:
    others = {f"d{number}": f"uid-{number}" for number in range(30)}
    puts = {}
    for name, uid in others.items():
        record = DeploymentRecord(deployment=Deployment(name=f"deployments/{name}", uid=uid))
        puts[wire.deployment_key(name)] = record.SerializeToString()
    await fleet.want(CHAT)
    await fleet.store.commit([], puts)
    fleet.report()
    await fleet.until(lambda routes: len(routes.replicas) == 31 and bool(routes.replicas["chat"]))
    await fleet.store.commit([], {}, [wire.deployment_key(each) for each in others])
    after = await fleet.until(lambda routes: len(routes.replicas) == 1)
    assert [each.engine_uuid for each in after.replicas["chat"]] == ["e"]
