"""Writes the report of this node: everything that it knows, at one time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nodeagent.assignment import order_to_wire
from nodeagent.facts import node_facts
from nodeagent.identity import NodeIdentity
from nodeagent.model import Occupant, Order, Sample
from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit.latest import Latest

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
    taints: Sequence[tuple[str, str]] = ()
    capabilities: Sequence[str] = ()


class Reporter:
    """Puts together what the parts of the agent know."""

    def __init__(
        self,
        who: Self,
        engines: Engines,
        models: Models,
        occupants: Latest[tuple[Occupant, ...]],
        samples: Latest[Sample | None],
        *,
        cached: Callable[[], Sequence[agent_service_pb2.CachedModelFacts]] = tuple,
    ) -> None:
        self._who, self._engines, self._models, self._cached = who, engines, models, cached
        self._occupants, self._samples = occupants, samples

    def report(self) -> agent_service_pb2.JoinRequest:
        """Returns the report as of now."""
        who, applied = self._who, self._engines.applied
        return agent_service_pb2.JoinRequest(
            protocol_version=PROTOCOL_VERSION,
            lowest_protocol_version=LOWEST_PROTOCOL_VERSION,
            capabilities=who.capabilities,
            node_id=who.node.node_id,
            node_uid=who.node.node_uid,
            agent_uid=who.agent_uid,
            boot_id=who.boot_id,
            machine_id=who.machine_id,
            applied_order=None if applied is None else order_to_wire(applied),
            refusals=self._engines.refusals(),
            node=node_facts(who.labels, who.taints, self._samples.get(), self._occupants.get()),
            engines=self._engines.reports(),
            models=self._models.facts(),
            cached_models=self._cached(),
        )
