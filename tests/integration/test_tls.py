"""A control plane with a certificate, and who can talk to it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from roundhouse.client import Client
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tls import ServerTls
from roundhouse.v1 import node_service_pb2, node_service_pb2_grpc
from tests.support.cluster import Cluster, node_ready

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates of this test")

NAME = "/CN=localhost"
SUBJECT_ALT = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    """A self-signed certificate for this machine, which is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", NAME, "-addext", SUBJECT_ALT, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return ServerTls(certificate, key)


@contextlib.asynccontextmanager
async def secured(folder: Path, tls: ServerTls) -> AsyncIterator[Cluster]:
    """Runs a control plane with the certificate, and an agent that trusts it."""
    it = Cluster(folder)
    try:
        await it.start_control_plane("--tls-cert", str(tls.certificate), "--tls-key", str(tls.key))
        it.start_agent("--simulate-gpus", "1x8GiB", "--tls-ca", str(tls.certificate))
        yield it
    finally:
        await it.stop()


async def test_an_agent_and_a_client_that_trust_the_certificate_are_served(tmp_path: Path, tls: ServerTls) -> None:
    async with secured(tmp_path, tls) as it, Client(it.address, ca=tls.certificate) as client:
        await node_ready(client)
        [node] = (await client.nodes.list()).nodes
        assert [gpu.total_memory_bytes for gpu in node.gpus] == [8 << 30]


async def test_a_client_in_the_clear_is_told_that_the_server_is_unreachable(tmp_path: Path, tls: ServerTls) -> None:
    it = Cluster(tmp_path)
    try:
        await it.start_control_plane("--tls-cert", str(tls.certificate), "--tls-key", str(tls.key))
        async with Client(it.address, timeout_s=10) as client:
            with pytest.raises(Unreachable):
                await client.nodes.list()
    finally:
        await it.stop()


async def test_a_server_that_asks_for_certificates_serves_nobody_without_one(tls: ServerTls) -> None:
    service = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], object())
    mutual = ServerTls(tls.certificate, tls.key, client_ca=tls.certificate)
    async with (
        serve(Listen("127.0.0.1", 0, tls=mutual), [service], grace_s=0) as serving,
        open_channel(serving.address, ca=tls.certificate) as channel,
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            await node_service_pb2_grpc.NodeServiceStub(channel).ListNodes(node_service_pb2.ListNodesRequest())
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
async def test_a_gateway_that_trusts_the_certificate_follows_and_serves_with_its_own(
    tmp_path: Path, tls: ServerTls
) -> None:
    pair = ("--tls-cert", str(tls.certificate), "--tls-key", str(tls.key))
    async with secured(tmp_path, tls) as it:
        address = await it.start_gateway("gateway", "--tls-ca", str(tls.certificate), *pair)
        async with Client(address, ca=tls.certificate) as client:
            await node_ready(client)
            [node] = (await client.nodes.list()).nodes
            assert [gpu.total_memory_bytes for gpu in node.gpus] == [8 << 30]
