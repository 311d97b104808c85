"""The gate before a server of ours: what callers present, and what it makes of that."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from controlplane.auth.caller import Caller, caller
from controlplane.auth.gate import Guard
from controlplane.auth.methods import Role
from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.kit.channel import open_channel
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import node_service_pb2

LIST = "/roundhouse.v1.NodeService/ListNodes"
DESCRIBE = "/roundhouse.internal.v1.EngineService/Describe"
CALLERS = {
    "rha_v": Caller("vera", Role.VIEWER),
    "rha_o": Caller("otto", Role.OPERATOR),
    "rha_n": Caller("nova"),  # with a role of a newer version
}


class Doorman:
    """Knows these callers, and no nodes."""

    def find(self, secret: str) -> Caller | None:
        return CALLERS.get(secret)

    def of(self, node: str) -> int:
        return 0


class Servicer:
    """Remembers who called."""

    def __init__(self) -> None:
        self.called_by: list[str] = []

    async def ListNodes(self, request: Any, context: Any) -> Any:
        self.called_by.append(caller().principal)
        return node_service_pb2.ListNodesResponse()

    async def Describe(self, request: Any, context: Any) -> Any:
        raise AssertionError("nobody is let through")


@contextlib.asynccontextmanager
async def gated() -> AsyncIterator[tuple[grpc.aio.Channel, Servicer]]:
    servicer = Servicer()
    services = [
        Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], servicer),
        Service(engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"], servicer),
    ]
    gate = Guard(Doorman(), Doorman(), SystemClock())
    async with (
        serve(Listen("127.0.0.1", 0), services, grace_s=0, gate=gate) as serving,
        open_channel(serving.address) as channel,
    ):
        yield channel, servicer


async def answer(channel: grpc.aio.Channel, method: str, metadata: Sequence[tuple[str, str]], body: bytes = b"") -> str:
    """Calls a method; returns its reason, or its code if it has none, or OK."""
    try:
        call: Any = channel.unary_unary(method)
        await call(body, metadata=metadata)
    except grpc.RpcError as error:
        return reason_name(error_of(error).own_reason)
    return "OK"


@pytest.mark.parametrize("header", ["Bearer rha_v", "bearer rha_v", "BEARER  rha_v "])
async def test_the_scheme_may_be_written_as_one_likes(header: str) -> None:
    async with gated() as (channel, servicer):
        assert await answer(channel, LIST, [("authorization", header)]) == "OK"
    assert servicer.called_by == ["vera"]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "rha_v")],
        [("authorization", "Basic rha_v")],
        [("authorization", "Bearer rha_x")],
        [("authorization", "Bearer rha_x"), ("authorization", "Bearer rha_v")],
        [("authorization-bin", b"Bearer rha_v")],
        [("x-authorization", "Bearer rha_v")],
    ],
    ids=str,
)
async def test_what_is_no_bearer_token_that_is_known_is_none(metadata: list[tuple[str, str]]) -> None:
    async with gated() as (channel, servicer):
        assert await answer(channel, LIST, metadata) == "TOKEN_INVALID"
    assert servicer.called_by == []


async def test_nothing_is_read_of_a_caller_who_is_not_let_in() -> None:
    async with gated() as (channel, _):
        assert await answer(channel, LIST, [], b"\xff") == "TOKEN_INVALID"
        assert await answer(channel, LIST, [("authorization", "Bearer rha_v")], b"\xff") == "FIELD_INVALID"


async def test_a_method_that_the_table_lacks_is_served_to_nobody() -> None:
    async with gated() as (channel, _):
        assert await answer(channel, DESCRIBE, [("authorization", "Bearer rha_o")]) == "ROLE_TOO_LOW"


async def test_a_role_that_is_not_known_here_allows_nothing() -> None:
    async with gated() as (channel, servicer):
        assert await answer(channel, LIST, [("authorization", "Bearer rha_n")]) == "ROLE_TOO_LOW"
    assert servicer.called_by == []
