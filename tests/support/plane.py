"""A control plane in this process, with everything real: store, reconciler, server, on a free port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from controlplane.__main__ import running
from controlplane.config import Config, PlacementDefaults
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import RoundhouseError
from roundhouse.kit.server import Listen
from roundhouse.kit.status import error_of, reason_name
from roundhouse.v1 import catalog_service_pb2_grpc, deployment_pb2, deployment_service_pb2_grpc, node_service_pb2_grpc
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import Deployment, Replica

PATIENCE_S = 20.0  # two cores that others use too


class Plane:
    """Where it listens, and how to talk to it."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.deployments: Any = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        self.nodes: Any = node_service_pb2_grpc.NodeServiceStub(channel)
        self.catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)

    async def create(self, name: str = "chat", *, allow_pending: bool = False, **fields: Any) -> Deployment:
        """Creates a deployment of the demo model."""
        request = pb.CreateDeploymentRequest(deployment=wanted(name, **fields), allow_pending=allow_pending)
        response: pb.CreateDeploymentResponse = await self.deployments.CreateDeployment(request)
        return response.deployment

    async def get(self, name: str = "chat") -> Deployment:
        """Reads a deployment."""
        request = pb.GetDeploymentRequest(name=f"deployments/{name}")
        response: pb.GetDeploymentResponse = await self.deployments.GetDeployment(request)
        return response.deployment

    async def replicas(self, name: str = "chat") -> list[Replica]:
        """Lists replicas."""
        request = pb.ListReplicasRequest(parent=f"deployments/{name}")
        response: pb.ListReplicasResponse = await self.deployments.ListReplicas(request)
        return list(response.replicas)

    async def until(self, holds: Callable[[dict[str, Deployment]], bool]) -> dict[str, Deployment]:
        """Watches until something holds of all deployments by name; returns them."""
        seen: dict[str, Deployment] = {}
        async with self.watching(self.deployments.WatchDeployments(pb.WatchDeploymentsRequest())) as events:
            async for event in events:
                take_in(event, seen)
                if holds(seen):
                    return seen
        raise AssertionError("the watch ended")

    async def until_replicas(self, holds: Callable[[dict[str, Replica]], bool], name: str = "-") -> dict[str, Replica]:
        """The same of replicas, by name."""
        seen: dict[str, Replica] = {}
        request = pb.WatchReplicasRequest(parent=f"deployments/{name}")
        async with self.watching(self.deployments.WatchReplicas(request)) as events:
            async for event in events:
                take_in(event, seen)
                if holds(seen):
                    return seen
        raise AssertionError("the watch ended")

    @contextlib.asynccontextmanager
    async def watching(self, call: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """Gives the events of a watch for the block, which may last as long as a test has patience."""
        async with asyncio.timeout(PATIENCE_S), cancelling(call):
            yield _events(call)


def wanted(name: str = "chat", **fields: Any) -> Deployment:
    """A deployment of the demo model."""
    fields.setdefault("model", deployment_pb2.ModelSource(builtin="demo"))
    return Deployment(name=f"deployments/{name}", **fields)


def take_in(event: Any, seen: dict[str, Any]) -> None:
    """Applies an event of a watch to what was seen so far, by name."""
    match event.WhichOneof("event"):
        case "changed":
            seen[event.changed.name] = event.changed
        case "deleted":
            del seen[event.deleted]


async def _events(call: Any) -> AsyncIterator[Any]:
    async for message in call:
        for event in message.events:
            yield event


async def refused(call: Awaitable[Any]) -> RoundhouseError:
    """Awaits a call that must fail; returns the error."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error_of(error)
    raise AssertionError(f"it was not refused: {answer}")


def reason_of(error: RoundhouseError) -> str:
    """Returns the reason as it stands on the wire."""
    return reason_name(error.own_reason)


@contextlib.asynccontextmanager
async def plane_on(state_dir: Path, *, lease_s: float = 7.0, allows_sharing: bool = True) -> AsyncIterator[Plane]:
    """Runs a control plane on a state directory for the block."""
    defaults = PlacementDefaults("idle_first", allows_sharing)
    config = Config(Listen("127.0.0.1", 0), state_dir, defaults, node_lease_s=lease_s, stop_grace_s=0.0)
    async with running(config) as serving, open_channel(serving.address) as channel:
        yield Plane(serving.address, channel)
