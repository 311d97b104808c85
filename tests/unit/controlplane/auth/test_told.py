"""The gate of a gateway, by what it was told of those who may call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from controlplane.auth.caller import Caller, caller
from controlplane.auth.keys import hash_of
from controlplane.auth.known import callers_message
from controlplane.auth.methods import Role
from controlplane.auth.told import ToldCallers, ToldGate
from roundhouse.kit.channel import open_channel
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import catalog_service_pb2, node_service_pb2
from tests.support.clock import FakeClock

OWN = "/roundhouse.v1.NodeService/ListNodes"
PASSED_ON = "/roundhouse.v1.CatalogService/ListFamilies"
HEALTH = "/grpc.health.v1.Health/Check"
OPEN = callers_message(None)
ADA = callers_message({hash_of("rha_ada"): Caller("ada", Role.VIEWER, expire_s=1_000_010.0)})
NOBODY = callers_message({})


class Servicer:
    """Remembers who called."""

    def __init__(self) -> None:
        self.called_by: list[str] = []

    async def ListNodes(self, request: Any, context: Any) -> Any:
        self.called_by.append(caller().principal)
        return node_service_pb2.ListNodesResponse()

    async def ListFamilies(self, request: Any, context: Any) -> Any:
        return catalog_service_pb2.ListFamiliesResponse()


class House:
    """A server behind the gate, of which one service is passed on."""

    def __init__(self) -> None:
        self.clock, self.is_heard = FakeClock(), True
        self.callers = ToldCallers(self.clock, lambda: self.is_heard)
        self.servicer = Servicer()
        self.is_first_told = asyncio.Event()
        self.is_first_told.set()
        self.channel: grpc.aio.Channel

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        services = [
            Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], self.servicer),
            Service(catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"], self.servicer),
        ]
        gate = ToldGate(self.callers, self.clock, ["roundhouse.v1.CatalogService"], self._first_told)
        async with (
            gate.ending(),
            serve(Listen("127.0.0.1", 0), services, grace_s=0, gate=gate) as serving,
            open_channel(serving.address) as self.channel,
        ):
            yield

    async def _first_told(self) -> None:
        await self.is_first_told.wait()

    async def answer(self, token: str = "", method: str = OWN) -> str:
        """Calls a method; returns its reason, or OK."""
        try:
            call: Any = self.channel.unary_unary(method)
            await call(b"", metadata=[("authorization", f"Bearer {token}")] if token else [])
        except grpc.RpcError as error:
            return reason_name(error_of(error).own_reason)
        return "OK"


@pytest.fixture
async def house() -> AsyncIterator[House]:
    it = House()
    async with it.served():
        yield it


async def test_before_anything_was_told_nobody_is_served_but_by_the_control_plane(house: House) -> None:
    assert [await house.answer(), await house.answer("rha_ada")] == ["INTERRUPTED"] * 2
    assert [await house.answer(method=each) for each in (PASSED_ON, HEALTH)] == ["OK"] * 2
    assert house.servicer.called_by == []


async def test_who_calls_before_the_first_word_waits_for_it(house: House) -> None:
    house.is_first_told.clear()
    early = [asyncio.create_task(house.answer(each)) for each in ("rha_ada", "rha_bob")]
    assert await house.answer(method=PASSED_ON) == "OK"
    house.callers.take(ADA)
    house.is_first_told.set()
    assert await asyncio.gather(*early) == ["OK", "TOKEN_INVALID"]


async def test_where_nobody_is_asked_everybody_is_served(house: House) -> None:
    house.callers.take(OPEN)
    assert [await house.answer(), await house.answer("rha_ada")] == ["OK"] * 2
    assert house.servicer.called_by == ["local"] * 2


async def test_where_callers_are_asked_those_are_served_who_are_known(house: House) -> None:
    house.callers.take(ADA)
    assert await house.answer("rha_ada") == "OK"
    assert house.servicer.called_by == ["ada"]
    assert [await house.answer(), await house.answer("rha_bob")] == ["TOKEN_INVALID"] * 2
    assert [await house.answer(method=each) for each in (PASSED_ON, HEALTH)] == ["OK"] * 2
    house.callers.take(NOBODY)
    assert await house.answer("rha_ada") == "TOKEN_INVALID"


async def test_a_gate_that_was_closed_once_does_not_open(house: House) -> None:
    house.callers.take(ADA)
    house.callers.take(OPEN)
    assert [await house.answer(), await house.answer("rha_ada")] == ["TOKEN_INVALID", "OK"]


async def test_a_gate_closes_if_the_control_plane_refuses_the_gateway(house: House) -> None:
    house.callers.take(OPEN)
    house.callers.refused()
    house.is_heard = False
    assert [await house.answer(), await house.answer("rha_ada")] == ["TOKEN_INVALID", "INTERRUPTED"]


async def test_a_gateway_that_is_refused_goes_on_with_the_callers_that_it_knows(house: House) -> None:
    house.callers.take(ADA)
    house.callers.refused()
    house.is_heard = False
    assert await house.answer("rha_ada") == "OK"


async def test_whoever_is_not_known_while_the_control_plane_is_away_may_try_again(house: House) -> None:
    house.callers.take(ADA)
    house.is_heard = False
    assert [await house.answer(each) for each in ("rha_ada", "rha_bob", "")] == ["OK", "INTERRUPTED", "TOKEN_INVALID"]
    house.clock.advance(10)
    assert await house.answer("rha_ada") == "TOKEN_INVALID"  # its time is over, whatever was made meanwhile
