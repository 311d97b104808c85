"""`python -m controlplane --role gateway`: a gateway in a process of its own. Wires, and decides nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog
from google.protobuf.descriptor import ServiceDescriptor

from controlplane import gateway_group
from controlplane.auth.gate import require_all_rated
from controlplane.auth.told import ToldCallers, ToldGate
from controlplane.gateway.remote import RemoteRoutes
from controlplane.gateway.service import open_gateway
from controlplane.gateway_config import GatewayConfig, parse
from controlplane.model import Routes
from roundhouse.kit import logs
from roundhouse.kit.authorized import Authorized
from roundhouse.kit.channel import open_channel
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.files import announced
from roundhouse.kit.forward import Forwarded
from roundhouse.kit.latest import Latest, first_of
from roundhouse.kit.server import Served, Serving, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import looping
from roundhouse.kit.tls import is_loopback
from roundhouse.v1 import (
    access_service_pb2,
    catalog_service_pb2,
    deployment_service_pb2,
    event_service_pb2,
    inference_service_pb2,
    node_service_pb2,
)

NAME = "gateway"
RETRY_AFTER_S = 1.0
# Where others could read what is answered, a token that is made would not be secret.
_ACCESS = access_service_pb2.DESCRIPTOR.services_by_name["AccessService"]
_INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
# What clients may ask of the control plane through a gateway. Nothing internal: what agents and gateways are told is no
# client's business, and who they are is known of their own connections alone.
FORWARDED = (
    deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"],
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    node_service_pb2.DESCRIPTOR.services_by_name["NodeService"],
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"],
)

log = structlog.get_logger()


async def run(arguments: Sequence[str], environ: Mapping[str, str], stop: asyncio.Event) -> None:
    """Runs a gateway until `stop` is set."""
    config = parse(arguments, environ)
    logs.configure(config.log_level)
    if config.gateway_count > 1:
        await gateway_group.run(config, arguments, stop)
        return
    async with running(config), looping({"parent": lambda: _end_with_parent(stop)} if config.shares_port else {}):
        await stop.wait()
        log.info("gateway stops")


@contextlib.asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[Serving]:
    """Runs a gateway for the block; its address stands in the file that was named meanwhile.

    Health says NOT_SERVING until the control plane has told what there is; of what is passed on to it, whenever it is
    away.
    """
    gateway_id = uuid.uuid4().hex  # of this life, and of no other process behind the same port
    forwarded = (*FORWARDED, _ACCESS) if config.listen.is_private else FORWARDED
    clock = SystemClock()
    async with open_channel(config.control_plane, ca=config.tls_ca) as channel:
        # Calls that are passed on carry the token of their own caller, and never this one.
        own = channel if config.token is None else Authorized(channel, config.token)
        callers = ToldCallers(clock, lambda: remote.routes.get().is_current)
        remote = RemoteRoutes(own, callers, gateway_id=gateway_id, random=random.random, now_s=time.monotonic)
        first = _FirstTold(remote.routes, callers, config.first_grace_s)
        gate = ToldGate(callers, clock, (each.full_name for each in forwarded), first.wait)
        async with (
            gate.ending(),
            open_gateway(remote.routes, gateway_id=gateway_id, settings=config.admission) as gateway,
        ):
            inference = Service(_INFERENCE, gateway)
            require_all_rated([inference])
            services: list[Served] = [
                inference,
                *(Forwarded(each, channel, lambda: _away(config.control_plane)) for each in forwarded),
            ]
            async with (
                serve(
                    config.listen,
                    services,
                    grace_s=config.stop_grace_s,
                    is_healthy=False,
                    gate=gate,
                    shares_port=config.shares_port,
                ) as serving,
                looping(
                    {
                        "routes": remote.run,
                        "health": lambda: _tell_health(remote.routes, serving, forwarded),
                        "warning": lambda: _warn_if_open(remote.routes, callers, serving),
                    }
                ),
                gateway.ending(),
            ):
                with announced(config.address_file, serving.address):
                    log.info(
                        "gateway serving",
                        gateway=gateway_id,
                        address=serving.address,
                        control_plane=config.control_plane,
                    )
                    yield serving


class _FirstTold:
    """Waits for what a gateway must know before it can serve, for so long after it began and no longer.

    A gateway that is started again behind the same port gets the calls of the one before at once.
    """

    def __init__(self, routes: Latest[Routes], callers: ToldCallers, within_s: float) -> None:
        self._routes, self._refusal = routes, callers.refusal
        self._end_s = time.monotonic() + within_s

    async def wait(self) -> None:
        """Returns at once when all was told for the first time, or nothing will be, or the time is over."""
        while (left_s := self._end_s - time.monotonic()) > 0:
            if self._routes.get().is_current or self._refusal.is_set():
                self._end_s = 0.0
                return
            await first_of([self._routes.newer(), self._refusal], most_s=left_s)


async def _end_with_parent(stop: asyncio.Event) -> None:
    """Ends this gateway with the process that started it beside others, which holds the other end of its input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


async def _tell_health(routes: Latest[Routes], serving: Serving, forwarded: Sequence[ServiceDescriptor]) -> None:
    has_known = False
    async for now in routes.watch():
        has_known = has_known or now.is_current
        for name in ("", _INFERENCE.full_name):
            await serving.set_healthy(has_known, name)
        for each in forwarded:
            await serving.set_healthy(now.is_current, each.full_name)


async def _warn_if_open(routes: Latest[Routes], callers: ToldCallers, serving: Serving) -> None:
    async for now in routes.watch():
        if now.is_current:
            if not (callers.are_asked or is_loopback(serving.host)):
                log.warning("everybody who reaches this port may run code on the nodes", address=serving.address)
            return


def _away(address: str) -> Unreachable:
    return Unreachable(
        f"the control plane at {address} does not answer this gateway, which goes on serving models: "
        "start it again, or check --control-plane of the gateway",
        retry_after_s=RETRY_AFTER_S,
    )
