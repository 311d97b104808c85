"""A control plane in this process that asks callers who they are, with certificates of `roundhouse certs init`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from controlplane.__main__ import running
from controlplane.config import AuthSettings, Config, PlacementDefaults
from roundhouse.cli.certs import certs
from roundhouse.client import Client
from roundhouse.internal.v1 import enrollment_service_pb2 as pb
from roundhouse.internal.v1.enrollment_service_pb2_grpc import EnrollmentServiceStub
from roundhouse.kit.certificates import Authority, new_key, signing_request
from roundhouse.kit.channel import open_channel
from roundhouse.kit.server import Listen
from roundhouse.kit.tls import ClientTls, ServerTls

ANSWER_S = 30.0  # two cores, shared
LIFE_S = 30 * 24 * 3600.0


def made_certs(folder: Path) -> Path:
    """Makes an authority and a certificate for this machine; returns their directory."""
    directory = folder / "certs"
    ended = CliRunner().invoke(certs, ["init", str(directory)], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return directory


@dataclass(frozen=True, slots=True)
class Secured:
    """Where it listens, and how to talk to it."""

    address: str  # of people
    agents: str  # of agents
    state_dir: Path
    certs: Path

    @property
    def ca(self) -> Path:
        """What everybody trusts."""
        return self.certs / "ca.pem"

    @property
    def operator_token(self) -> str:
        """The token in the state directory."""
        return (self.state_dir / "operator.token").read_text().strip()

    def client(self, token: str | None = None) -> Client:
        """Returns a client that presents a token, to be entered."""
        return Client(self.address, ca=self.ca, token=token)

    def operator(self) -> Client:
        """Returns the client of an operator."""
        return self.client(self.operator_token)

    async def token(self, name: str, role: str, *, tenant: str = "", lifetime_s: float | None = None) -> str:
        """Makes a token and returns its secret."""
        async with self.operator() as client:
            return (await client.access.create(name, role=role, tenant=tenant, lifetime_s=lifetime_s)).secret

    async def join_token(self, node: str = "") -> str:
        """Makes a join token and returns its secret."""
        async with self.operator() as client:
            return (await client.access.create_join_token(node=node)).secret

    async def enroll(self, node: str, token: str, key: bytes | None = None) -> ClientTls:
        """Gets a certificate for a node, as its agent does."""
        key = key or new_key()
        async with open_channel(self.address, ca=self.ca) as channel:
            request = pb.EnrollNodeRequest(token=token, node_id=node, certificate_request=signing_request(key, node))
            answer = await EnrollmentServiceStub(channel).EnrollNode(request, timeout=ANSWER_S)
        return ClientTls(answer.certificate, key)

    def forged(self, node: str) -> ClientTls:
        """Returns a certificate for a node of an authority that nobody asked."""
        key = new_key()
        signed = Authority.make("roundhouse", time.time()).node(
            node, 0, signing_request(key, node), time.time(), LIFE_S
        )
        return ClientTls(signed.certificate, key)


@contextlib.asynccontextmanager
async def secured_plane(folder: Path, *, port: int = 0, asks: bool = True) -> AsyncIterator[Secured]:
    """Runs one for the block; started again in the same folder, it has the same state and certificates.

    asks: whether it asks callers for tokens; if not, agents have no port of their own.
    """
    directory = folder / "certs"
    if not directory.exists():
        made_certs(folder)
    tls = ServerTls(directory / "server.pem", directory / "server.key")
    auth = AuthSettings(Listen("127.0.0.1", 0, tls), directory) if asks else None
    state_dir = folder / "state"
    listen, defaults = Listen("127.0.0.1", port, tls), PlacementDefaults("idle_first")
    async with running(Config(listen, state_dir, defaults, auth=auth, stop_grace_s=0.0)) as serving:
        [agents] = serving.beside or [""]
        yield Secured(serving.address, agents, state_dir, directory)
