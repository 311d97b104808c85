"""Writes the report of this node: everything that it knows, at one time."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol

from nodeagent.assignment import order_to_wire
from nodeagent.identity import NodeIdentity
from nodeagent.model import Occupant, Order, Reading, Sample
from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit.latest import Latest
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import node_pb2

PROTOCOL_VERSION = 1
LOWEST_PROTOCOL_VERSION = 1


class Engines(Protocol):
    """The engines of this node."""

    @property
    def applied(self) -> Order | None:
        """Returns the order of the assignment that is obeyed."""

    def reports(self) -> Sequence[agent_service_pb2.EngineReport]:
        """Returns what is known of every engine."""

    def refusals(self) -> Sequence[agent_service_pb2.Refusal]:
        """Returns which replicas are not started, and why."""


class Models(Protocol):
    """The models that were asked about."""

    def facts(self) -> Sequence[agent_service_pb2.ModelFacts]:
        """Returns the answers."""


@dataclass(frozen=True, slots=True)
class Self:
    """What does not change while the agent lives."""

    node: NodeIdentity
    agent_uid: str
    boot_id: str
    machine_id: str
    labels: Mapping[str, str]


class Reporter:
    """Puts together what the parts of the agent know."""

    def __init__(
        self,
        who: Self,
        engines: Engines,
        models: Models,
        occupants: Latest[tuple[Occupant, ...]],
        samples: Latest[Sample | None],
    ) -> None:
        self._who, self._engines, self._models = who, engines, models
        self._occupants, self._samples = occupants, samples

    def report(self) -> agent_service_pb2.JoinRequest:
        """Returns the report as of now."""
        who, applied = self._who, self._engines.applied
        return agent_service_pb2.JoinRequest(
            protocol_version=PROTOCOL_VERSION,
            lowest_protocol_version=LOWEST_PROTOCOL_VERSION,
            node_id=who.node.node_id,
            node_uid=who.node.node_uid,
            agent_uid=who.agent_uid,
            boot_id=who.boot_id,
            machine_id=who.machine_id,
            applied_order=None if applied is None else order_to_wire(applied),
            refusals=self._engines.refusals(),
            node=node_facts(who.labels, self._samples.get(), self._occupants.get()),
            engines=self._engines.reports(),
            models=self._models.facts(),
        )


def node_facts(
    labels: Mapping[str, str], sample: Sample | None, occupants: Sequence[Occupant]
) -> agent_service_pb2.NodeFacts:
    """Returns what is known of the machine."""
    facts = agent_service_pb2.NodeFacts(
        hostname=socket.gethostname(), agent_version=metadata.version("roundhouse-serve"), labels=labels
    )
    if sample is None:
        return facts
    facts.gpus.extend(_gpu(each, sample.gpu_time_s) for each in sample.gpus)
    facts.sample_time.CopyFrom(to_timestamp(sample.time_s))
    real = {each.uuid for each in sample.gpus if not each.is_simulated}
    facts.host.CopyFrom(
        node_pb2.Host(
            cpu_count=sample.host.cpu_count,
            cpu_fraction=sample.host.cpu_fraction,
            total_memory_bytes=sample.host.total_bytes,
            available_memory_bytes=sample.host.available_bytes,
            reserved_memory_bytes=sum(each.reserved_bytes for each in occupants if real.isdisjoint(each.gpu_uuids)),
        )
    )
    return facts


def _gpu(reading: Reading, time_s: float) -> node_pb2.Gpu:
    return node_pb2.Gpu(
        uuid=reading.uuid,
        index=reading.index,
        product_name=reading.product_name,
        is_simulated=reading.is_simulated,
        state=node_pb2.GPU_STATE_FAILED if reading.failure else node_pb2.GPU_STATE_OK,
        state_message=reading.failure,
        total_memory_bytes=reading.total_bytes,
        used_memory_bytes=reading.used_bytes,
        free_memory_bytes=reading.free_bytes,
        foreign_memory_bytes=reading.foreign_bytes,
        utilization_fraction=reading.mean_utilization_fraction,
        last_utilization_fraction=reading.utilization_fraction,
        temperature_celsius=reading.temperature_celsius,
        power_watts=reading.power_watts,
        sample_time=to_timestamp(time_s),
    )
