"""A server of ours, seen from outside: its port, its health, its reflection."""

from __future__ import annotations

from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import node_service_pb2

SERVICE = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], object())
LOOPBACK = Listen("127.0.0.1", 0)


async def test_a_port_in_use_is_refused_by_its_address() -> None:
    async with serve(LOOPBACK, [SERVICE], grace_s=0) as first:
        with pytest.raises(Usage, match=rf"cannot listen on {first.address}.*choose another"):
            async with serve(Listen.parse(first.address), [SERVICE]):
                pass


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "example.org", "[::]"])
async def test_a_host_that_others_reach_is_refused_without_tls(host: str) -> None:
    with pytest.raises(Usage, match=r"without TLS.*--insecure"):
        async with serve(Listen(host, 0), [SERVICE]):
            pass


async def test_an_exposed_host_is_served_when_that_is_meant() -> None:
    async with serve(Listen("0.0.0.0", 0, insecure=True), [SERVICE], grace_s=0) as serving:
        assert serving.port > 0


@pytest.mark.parametrize("text", ["", "localhost", ":50050", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Usage, match="write HOST:PORT"):
        Listen.parse(text)


async def test_health_is_watched() -> None:
    async with serve(LOOPBACK, [SERVICE], grace_s=0) as serving, open_channel(serving.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="roundhouse.v1.NodeService")
        async with cancelling(stub.Watch(request)) as call:
            assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
            await serving.set_healthy(False, "roundhouse.v1.NodeService")
            assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


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
