"""A port that is held for several servers, and for nobody else."""

from __future__ import annotations

import contextlib
import socket

import pytest

from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.shared_port import shared_port
from roundhouse.v1 import node_service_pb2

SERVICE = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], object())


async def test_servers_that_share_a_port_listen_on_it_together_and_others_are_refused() -> None:
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(shared_port("localhost", 0))
        listen = Listen("127.0.0.1", port)
        for _ in range(2):
            await stack.enter_async_context(serve(listen, [SERVICE], grace_s=0, shares_port=True))
        with pytest.raises(Usage, match="the port is in use"):
            await stack.enter_async_context(serve(listen, [SERVICE], grace_s=0))
        with pytest.raises(Usage, match="the port is in use"):
            await stack.enter_async_context(shared_port("127.0.0.1", port))


async def test_whoever_holds_a_port_gets_no_connections_and_gives_it_back() -> None:
    async with shared_port("127.0.0.1", 0) as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with pytest.raises(Usage, match="the port is in use"):
            async with serve(Listen("127.0.0.1", port), [SERVICE], grace_s=0):
                pass
    async with serve(Listen("127.0.0.1", port), [SERVICE], grace_s=0):
        pass


@pytest.mark.parametrize("host", ["no-such-host.invalid", "unix:/tmp/x", "192.0.2.1"])
async def test_a_host_that_is_none_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(Usage, match="cannot listen on"):
        async with shared_port(host, 0):
            pass
