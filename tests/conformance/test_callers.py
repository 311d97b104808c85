"""Who may call: in the control plane, and in a gateway that is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from controlplane import wire
from controlplane.api.fleet import FleetApi
from controlplane.auth.caller import Caller
from controlplane.auth.keys import hash_of
from controlplane.auth.methods import Role
from controlplane.auth.tokens import Tokens
from controlplane.auth.told import ToldCallers
from controlplane.fleet.changes import Changes
from controlplane.gateway.remote import RemoteRoutes
from controlplane.model import Routes
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.internal.v1 import fleet_service_pb2
from roundhouse.internal.v1.store_pb2 import AccessTokenRecord
from roundhouse.kit.channel import open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import looping
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import access_pb2
from roundhouse.v1.access_pb2 import AccessToken
from tests.support.clock import FakeClock
from tests.support.cluster import eventually

OPERATOR = "rha_operator"
INFERENCE = access_pb2.ACCESS_ROLE_INFERENCE


class Directory(Protocol):
    """What is tested: it finds callers, and tells which tokens were taken away."""

    ended: Changes[str]

    def find(self, secret: str) -> Caller | None: ...


class House:
    """Tokens in a store, and what finds callers by them, there or at a gateway."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.clock = store, FakeClock()
        self.tokens = Tokens(store, self.clock, OPERATOR)
        self.directory: Directory = self.tokens
        self.ended: list[str] = []
        self._has_ended = asyncio.Event()

    def note(self, name: str) -> None:
        self.ended.append(name)
        self._has_ended.set()

    async def create(self, name: str, *, tenant: str = "", expire_s: float | None = None) -> str:
        """Makes a token, and waits until it is known; returns its secret."""
        asked = AccessToken(name=f"accessTokens/{name}", role=INFERENCE, tenant=tenant)
        if expire_s is not None:
            asked.expire_time.CopyFrom(to_timestamp(expire_s))
        _, secret = await self.tokens.create(asked)
        await eventually(lambda: self.directory.find(secret), "the token is known")
        return secret

    async def until_ended(self) -> list[str]:
        """Waits until a token was taken away; returns those that were."""
        await asyncio.wait_for(self._has_ended.wait(), 20)
        return self.ended


@contextlib.asynccontextmanager
async def told_to_a_gateway(house: House) -> AsyncIterator[ToldCallers]:
    """Serves the tokens to a gateway, and gives what that knows of them."""
    fleet = FleetApi(Latest(Routes({})), house.tokens.known)
    service = Service(fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"], fleet)
    async with (
        serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving,
        open_channel(serving.address) as channel,
    ):
        callers = ToldCallers(house.clock, lambda: True)
        remote = RemoteRoutes(channel, callers, gateway_id="g", random=lambda: 0.0, now_s=time.monotonic)
        async with looping({"remote": remote.run}):
            await eventually(lambda: callers.are_asked, "callers were told")
            yield callers


@pytest.fixture(params=["local", "remote"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with open_sqlite(tmp_path / "store") as store, contextlib.AsyncExitStack() as stack:
        it = House(store)
        await stack.enter_async_context(it.tokens.kept())
        if request.param == "remote":
            it.directory = await stack.enter_async_context(told_to_a_gateway(it))
        stack.enter_context(it.directory.ended.to(it.note))
        yield it


def rights(caller: Caller | None) -> tuple[str, Role | None, str] | None:
    return None if caller is None else (caller.principal, caller.role, caller.tenant)


async def test_a_caller_is_found_by_the_secret_with_role_and_tenant(house: House) -> None:
    secret = await house.create("ada", tenant="blue")
    assert rights(house.directory.find(secret)) == ("ada", Role.INFERENCE, "blue")
    for wrong in ("", "rha_", secret[:-1], secret + "x", hash_of(secret).hex()):
        assert house.directory.find(wrong) is None


async def test_the_operator_of_the_state_directory_is_known_and_stays_it(house: House) -> None:
    assert rights(house.directory.find(OPERATOR)) == ("operator", Role.OPERATOR, "")
    await house.create("ada")
    await house.tokens.delete("ada")
    await house.until_ended()
    assert rights(house.directory.find(OPERATOR)) == ("operator", Role.OPERATOR, "")


async def test_a_token_that_is_deleted_is_told_of_and_known_no_more(house: House) -> None:
    ada, bob = await house.create("ada"), await house.create("bob")
    await house.tokens.delete("ada")
    assert await house.until_ended() == ["accessTokens/ada"]
    assert house.directory.find(ada) is None
    found = house.directory.find(bob)
    assert found is not None
    assert found.hold == "accessTokens/bob"


async def test_a_token_counts_until_its_time_is_over(house: House) -> None:
    secret = await house.create("ada", expire_s=house.clock.now() + 10)
    found = house.directory.find(secret)
    assert found is not None
    assert found.expire_s == house.clock.now() + 10
    house.clock.advance(10)
    assert house.directory.find(secret) is None
    assert house.ended == []  # whoever serves calls ends them at that time itself


async def test_a_token_of_the_same_name_is_another_one(house: House) -> None:
    first = await house.create("ada")
    await house.tokens.delete("ada")
    second = await house.create("ada")
    await eventually(lambda: house.directory.find(first) is None, "the first is known no more")
    assert rights(house.directory.find(second)) == ("ada", Role.INFERENCE, "")
    assert await house.until_ended() == ["accessTokens/ada"]


async def test_a_role_of_a_newer_version_is_none(house: House) -> None:
    record = AccessTokenRecord(secret_hash=hash_of("rha_new"))
    record.access_token.MergeFromString(AccessToken(name="accessTokens/nova").SerializeToString() + b"\x10\x63")
    await house.store.commit([], {wire.access_token_key("nova"): record.SerializeToString()})
    await eventually(lambda: house.directory.find("rha_new"), "the token is known")
    assert rights(house.directory.find("rha_new")) == ("nova", None, "")
