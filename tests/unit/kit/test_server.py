"""A server of ours, seen from outside: its port, its reflection."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import node_service_pb2

SERVICE = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], object())
LOOPBACK = Listen("127.0.0.1", 0)


def taken(address: str) -> socket.socket:
    """A port that somebody else listens on."""
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def has_ipv6() -> bool:
    try:
        taken("::1").close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


async def test_a_port_in_use_is_refused_by_its_address() -> None:
    async with serve(LOOPBACK, [SERVICE], grace_s=0) as first:
        with pytest.raises(Usage, match=rf"cannot listen on {first.address}.*choose another"):
            async with serve(Listen.parse(first.address), [SERVICE]):
                pass


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_a_name_is_refused_if_its_port_is_in_use_on_one_of_its_addresses(address: str) -> None:
    with taken(address) as other:
        port = other.getsockname()[1]
        with pytest.raises(Usage, match=rf"cannot listen on \S*{address}\S*:{port}: the port is in use"):
            async with serve(Listen("localhost", port), [SERVICE]):
                pass


@needs_ipv6
async def test_a_name_that_is_refused_keeps_none_of_its_addresses() -> None:
    with taken("::1") as other:
        port = other.getsockname()[1]
        with pytest.raises(Usage):
            async with serve(Listen("localhost", port), [SERVICE]):
                pass
        async with serve(Listen("127.0.0.1", port), [SERVICE], grace_s=0) as serving:
            assert serving.port == port


async def test_a_name_is_served_on_the_same_port_of_each_of_its_addresses() -> None:
    async with serve(Listen("localhost", 0), [SERVICE], grace_s=0) as serving:
        assert serving.address == f"localhost:{serving.port}"
        for address in ["localhost", "127.0.0.1", *(["[::1]"] if has_ipv6() else [])]:
            async with open_channel(f"{address}:{serving.port}") as channel:
                await channel.channel_ready()


async def test_a_name_that_stands_for_no_address_is_refused() -> None:
    with pytest.raises(Usage, match=r"cannot listen on nobody\.\.here: no address of this machine has that name"):
        async with serve(Listen("nobody..here", 0, insecure=True), [SERVICE]):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "example.org", "[::]"])
async def test_a_host_that_others_reach_is_refused_without_tls(host: str) -> None:
    with pytest.raises(Usage, match=r"without TLS.*--insecure"):
        async with serve(Listen(host, 0), [SERVICE]):
            pass


async def test_an_exposed_host_is_served_when_that_is_meant() -> None:
    async with serve(Listen("0.0.0.0", 0, insecure=True), [SERVICE], grace_s=0) as serving:
        assert serving.port > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        ":50050",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        pytest.param("127.0.0.1:" + "9" * 5000, id="a port without end"),
    ],
)
def test_an_address_that_is_none_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(Usage, match="write HOST:PORT") as refused:
        Listen.parse(text)
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes_every_service(version: str) -> None:
    async with serve(LOOPBACK, [SERVICE], grace_s=0) as serving, open_channel(serving.address) as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answers: list[Any] = []
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol=f"grpc.reflection.{version}.ServerReflection"
            ),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="roundhouse.v1.NodeService"),
        ]
        async with cancelling(ask()) as call:
            for each in requests:
                await call.write(each)
                answers.append(await call.read())
    assert {each.name for each in answers[0].list_services_response.service} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "roundhouse.v1.NodeService",
    }
    assert all(each.file_descriptor_response.file_descriptor_proto for each in answers[1:])
