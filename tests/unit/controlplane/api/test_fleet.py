"""What a gateway is told, message by message."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from controlplane.api.fleet import FleetApi
from controlplane.auth.caller import Caller
from controlplane.auth.known import Known
from controlplane.auth.methods import Role
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from roundhouse.internal.v1 import fleet_service_pb2, fleet_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import access_pb2

DESCRIPTOR = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
ONE = Route("chat", 0, ReplicaUid("r"), 1, NodeId("a"), "10.0.0.1:1", "e", b"a key", True, 3, 4)


@contextlib.asynccontextmanager
async def watched(
    routes: Latest[Routes], known: Latest[Known] | None = None, beat_s: float = 60.0
) -> AsyncIterator[Any]:
    """Gives a watch of these routes and callers."""
    service = Service(DESCRIPTOR, FleetApi(routes, known, beat_s=beat_s))
    async with (
        serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving,
        open_channel(serving.address) as channel,
        cancelling(
            fleet_service_pb2_grpc.FleetServiceStub(channel).WatchRoutes(fleet_service_pb2.WatchRoutesRequest())
        ) as call,
    ):
        yield call


def kinds(message: Any) -> list[str]:
    return [each.WhichOneof("event") for each in message.events]


async def test_first_everything_is_told_then_what_changed_and_each_look_ends_with_a_bookmark() -> None:
    routes = Latest(Routes({"chat": (ONE,), "other": ()}))
    async with watched(routes) as call:
        assert kinds(await call.read()) == ["callers", "changed", "changed", "bookmark"]
        routes.set(Routes({"chat": (replace(ONE, running_count=5),), "other": ()}))
        changed = await call.read()
        assert kinds(changed) == ["changed", "bookmark"]
        assert [each.running_count for each in changed.events[0].changed.routes] == [5]
        routes.set(Routes({"other": ()}))
        deleted = await call.read()
        assert kinds(deleted) == ["deleted", "bookmark"]
        assert deleted.events[0].deleted == "chat"


async def test_gateways_are_counted_while_they_are_connected_and_told_how_many_they_are() -> None:
    routes = Latest(Routes({}))

    def count(number: int) -> None:
        routes.set(replace(routes.get(), gateway_count=number))

    service = Service(DESCRIPTOR, FleetApi(routes, count_gateways=count))
    async with (
        serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving,
        open_channel(serving.address) as channel,
    ):
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        async with cancelling(stub.WatchRoutes(fleet_service_pb2.WatchRoutesRequest())) as first:
            assert (await _told(first, 2)) == 2  # with the one in the control plane
            async with cancelling(stub.WatchRoutes(fleet_service_pb2.WatchRoutesRequest())) as second:
                assert [await _told(each, 3) for each in (first, second)] == [3, 3]
            assert (await _told(first, 2)) == 2


async def _told(call: Any, wanted: int) -> int:
    """Reads until it is told that there are so many gateways."""
    while True:
        for event in (await call.read()).events:
            if event.gateway_count == wanted:
                return wanted


async def test_where_nothing_changes_a_bookmark_says_that_somebody_is_there() -> None:
    async with watched(Latest(Routes({"chat": (ONE,)})), beat_s=0.01) as call:
        assert kinds(await call.read()) == ["callers", "changed", "bookmark"]
        assert [kinds(await call.read()) for _ in range(3)] == [["bookmark"]] * 3


async def test_a_fleet_that_takes_more_than_one_message_has_one_bookmark() -> None:
    names = [f"d{number:05}" for number in range(2500)]
    async with watched(Latest(Routes(dict.fromkeys(names, ())))) as call:
        seen: list[Any] = []
        while not seen or seen[-1].WhichOneof("event") != "bookmark":
            seen += (await call.read()).events
    assert [each.changed.deployment for each in seen[1:-1]] == names


async def test_who_may_call_is_told_first_whole_and_again_when_that_changes() -> None:
    ada, bob = Caller("ada", Role.VIEWER, hold="accessTokens/ada"), Caller("bob", Role.OPERATOR, "blue", "x", 5.5)
    known: Latest[Known] = Latest({b"a": ada})
    routes = Latest(Routes({}, is_current=False))
    async with watched(routes, known) as call:
        routes.set(Routes({}))
        first = await call.read()
        assert kinds(first) == ["callers", "bookmark"]
        assert first.events[0].callers.are_asked
        assert [(each.principal, each.secret_hash) for each in first.events[0].callers.tokens] == [("ada", b"a")]
        known.set({b"a": ada, b"b": bob})
        second = await call.read()
        assert kinds(second) == ["callers", "bookmark"]
        [_, told] = second.events[0].callers.tokens
        assert (told.principal, told.role, told.tenant) == ("bob", access_pb2.ACCESS_ROLE_OPERATOR, "blue")
        assert told.expire_time.ToMilliseconds() == 5500
        routes.set(Routes({"chat": ()}))
        assert kinds(await call.read()) == ["changed", "bookmark"]
        known.set({})
        assert not (await call.read()).events[0].callers.tokens


async def test_that_nobody_is_asked_is_told_too() -> None:
    async with watched(Latest(Routes({}))) as call:
        [told, _] = (await call.read()).events
    assert told.HasField("callers")
    assert not told.callers.are_asked
