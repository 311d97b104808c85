"""A gRPC server as all our processes run it: one port of its own, health, reflection, an end in bounded time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from roundhouse.kit import reflection
from roundhouse.kit.errors import Usage
from roundhouse.kit.health import Health
from roundhouse.kit.hosts import own_addresses
from roundhouse.kit.service import Gate
from roundhouse.kit.tls import ServerTls, check_exposure, is_loopback

MAX_RECEIVE_BYTES = 32 * 1024 * 1024  # long prompts as token ids; gRPC's own 4 MiB is a million tokens short
_PORT_DIGITS = 5
_OPTIONS = (
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # the key that counts; the `recv` one is ignored
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 20_000),  # a client behind a cut cable is found within half a minute
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int
    tls: ServerTls | None = None
    insecure: bool = False

    @classmethod
    def parse(cls, address: str, *, tls: ServerTls | None = None, insecure: bool = False) -> Listen:
        """Reads `HOST:PORT`; raises Usage for anything else."""
        host, colon, port = address.rpartition(":")
        # A port of thousands of digits cannot even be read.
        if not (colon and host and port.isdecimal() and len(port) <= _PORT_DIGITS and int(port) < 65536):
            raise Usage(f'"{address[:100]}" is no address: write HOST:PORT, for example 127.0.0.1:50050')
        return cls(host, int(port), tls, insecure)

    @property
    def is_private(self) -> bool:
        """Tells whether nobody but the two ends of a call can read it."""
        return self.tls is not None or is_loopback(self.host)


class Served(Protocol):
    """A service of the contract, and who answers for it."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """The service."""

    def handlers(self, gate: Gate | None = None) -> grpc.GenericRpcHandler:
        """Returns what a server registers; every call passes the gate first, if there is one."""


class Serving:
    """A server that listens. `beside`: the addresses that it listens on too, in the order in which they were given."""

    def __init__(self, host: str, port: int, health: Health, beside: Sequence[str] = ()) -> None:
        self.host, self.port = host, port
        self.address = f"{host}:{port}"
        self.beside = tuple(beside)
        self._health = health

    async def set_healthy(self, healthy: bool, service: str = "") -> None:
        """Says over `grpc.health.v1` whether `service` (all of it if empty) serves; watchers learn at once."""
        self._health.set(service, healthy)


@contextlib.asynccontextmanager
async def serve(
    listen: Listen,
    services: Sequence[Served],
    *,
    grace_s: float = 2.0,
    max_receive_bytes: int = MAX_RECEIVE_BYTES,
    is_healthy: bool = True,
    gate: Gate | None = None,
    beside: Sequence[Listen] = (),
    shares_port: bool = False,
) -> AsyncIterator[Serving]:
    """Serves for the block; leaving it refuses new calls, gives running ones `grace_s` seconds, and cancels the rest.

    Health starts as `is_healthy` says, for the server as a whole and for each service. A name is served on each of its
    addresses. Raises Usage if the port is in use on one of them, or if the host is exposed without TLS and `insecure`
    is not set. gate: what every call passes, those of health and reflection too. beside: where the same is served as
    well, perhaps with other certificates. shares_port: other processes of this user may listen on the same port.
    """
    for each in (listen, *beside):
        check_exposure(each.host, has_tls=each.tls is not None, insecure=each.insecure)
    own = [
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.so_reuseport", int(shares_port)),  # 0, else a second server binds the same port in silence
    ]
    server = grpc.aio.server(options=[*_OPTIONS, *own])
    health = Health()
    served = [*services, health.service()]
    names = [each.descriptor.full_name for each in served]
    server.add_generic_rpc_handlers([each.handlers(gate) for each in (*served, *reflection.services(names))])
    port = await _bind(server, listen)
    others = [f"{each.host}:{await _bind(server, each)}" for each in beside]
    serving = Serving(listen.host, port, health, others)
    for name in ("", *(each.descriptor.full_name for each in services)):
        await serving.set_healthy(is_healthy, name)
    await server.start()
    try:
        yield serving
    finally:
        health.end()
        await server.stop(grace_s)


async def _bind(server: grpc.aio.Server, listen: Listen) -> int:
    """Binds each address by itself: given a name, gRPC is content with one of its addresses, and silent about it."""
    credentials = None if listen.tls is None else listen.tls.credentials()
    addresses = await own_addresses(listen.host)
    if not addresses:
        raise Usage(f"cannot listen on {listen.host}: no address of this machine has that name: choose another")
    port = listen.port
    for each in addresses:
        try:
            port = _add_port(server, f"{each}:{port}", credentials)  # what the system chose holds for the others too
        except Usage:
            await server.start()  # only a server that has run gives back what it has bound
            await server.stop(None)
            raise
    return port


def _add_port(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Usage(
            f"cannot listen on {address}: the port is in use or the address is not of this machine: choose another"
        ) from error
