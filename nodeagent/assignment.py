"""Takes assignments from the wire, and keeps the newest over the agent's own death."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import structlog
from google.protobuf import json_format

from nodeagent.model import Assigned, Assignment, Desired, Order
from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit.files import write_atomically
from roundhouse.kit.times import from_duration

log = structlog.get_logger()

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")  # it becomes the name of a directory


def from_wire(message: agent_service_pb2.JoinResponse) -> Assignment:
    """Returns the assignment in a message; raises ValueError if it is malformed."""
    order = message.order
    if not order.cluster_id:
        raise ValueError("the assignment names no cluster")
    replicas = tuple(_assigned(each) for each in message.engines)
    uids = {each.replica_uid for each in replicas}
    if len(uids) < len(replicas):
        raise ValueError("the assignment names a replica twice")
    return Assignment(Order(order.cluster_id, order.term, order.generation), replicas)


def order_to_wire(order: Order) -> agent_service_pb2.Order:
    """Returns an order as a message."""
    return agent_service_pb2.Order(cluster_id=order.cluster_id, term=order.term, generation=order.generation)


class AssignmentFile:
    """The newest assignment that was applied, on disk: an agent that starts while no control plane answers obeys it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unkept: agent_service_pb2.JoinResponse | None = None  # the newest, if it is not written yet
        self._is_told = False
        self._turn = asyncio.Lock()

    def load(self) -> Assignment | None:
        """Returns what was kept; None if there is nothing. Raises OSError or ValueError if it cannot be read."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return from_wire(json_format.Parse(text, agent_service_pb2.JoinResponse(), ignore_unknown_fields=True))
        except json_format.ParseError as error:
            raise ValueError(f"{self._path.name}: {error}") from error

    async def keep(self, message: agent_service_pb2.JoinResponse | None = None) -> None:
        """Keeps an assignment, or the newest that could not be kept so far: a full disk is no reason not to obey it."""
        self._unkept = message or self._unkept
        async with self._turn:  # so that an older one does not overtake it
            unkept = self._unkept
            if unkept is None:
                return
            try:
                await asyncio.to_thread(self.save, unkept)
            except OSError as error:
                if not self._is_told:
                    log.error("the assignment cannot be kept for the next agent", error=str(error))
                self._is_told = True
            else:
                self._is_told = False
                if self._unkept is unkept:
                    self._unkept = None

    def save(self, message: agent_service_pb2.JoinResponse) -> None:
        """Keeps an assignment. On disk when this returns."""
        write_atomically(self._path, json_format.MessageToJson(message).encode(), mode=0o600)  # it holds environments


def _assigned(message: agent_service_pb2.EngineAssignment) -> Assigned:
    if not _UID.match(message.replica_uid):
        raise ValueError(f'"{message.replica_uid}" is no uid of a replica')
    is_stopped = message.desired_state == agent_service_pb2.DESIRED_STATE_STOPPED
    return Assigned(
        replica=message.replica,
        replica_uid=message.replica_uid,
        placement_epoch=message.placement_epoch,
        deployment_generation=message.deployment_generation,
        desired=Desired.STOPPED if is_stopped else Desired.RUNNING,
        spec=message.spec.SerializeToString(deterministic=True),
        gpu_uuids=tuple(message.gpu_uuids),
        reserved_bytes=message.reserved_memory_bytes,
        drain_grace_s=max(0.0, from_duration(message.drain_grace)),
        hands_over=message.hands_over,
    )
