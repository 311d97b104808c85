"""Hands each node the whole of what it should run, as the store has it, with its place among all assignments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane import wire
from controlplane.fleet.changes import Marks
from controlplane.fleet.deletions import Deletions
from controlplane.fleet.intent import Intent
from controlplane.fleet.logs import LogWishes
from controlplane.fleet.models import Models
from controlplane.fleet.table import RowChange
from roundhouse.internal.v1.agent_service_pb2 import CachedModelKey, EngineAssignment, LogRequest, Order
from roundhouse.internal.v1.store_pb2 import AssignmentRecord
from roundhouse.v1.deployment_pb2 import ModelSource


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a node should run, the models that it should look up, the cached ones that it should delete, and the
    logs that it should send.
    """

    order: Order
    engines: Sequence[EngineAssignment]
    probes: Sequence[ModelSource]
    hub_probes: Sequence[ModelSource]
    deletions: Sequence[CachedModelKey]
    log_requests: Sequence[LogRequest]


class Assignments:
    """The assignments of one term of the control plane."""

    def __init__(
        self, intent: Intent, models: Models, deletions: Deletions, logs: LogWishes, *, cluster_id: str, term: int
    ) -> None:
        self._intent, self._models, self._deletions, self._logs = intent, models, deletions, logs
        self._cluster_id, self._term = cluster_id, term

    def now(self, node: str) -> Assignment:
        """Returns the newest assignment of a node; it is empty, of generation 0, if none is kept."""
        row = self._intent.assignments.rows.get(node)
        generation = 0 if row is None else row.revision
        engines = () if row is None else wire.assigned_engines(row.value)
        order = Order(cluster_id=self._cluster_id, term=self._term, generation=generation)
        return Assignment(
            order,
            tuple(engines),
            probes=tuple(self._models.probes),
            hub_probes=tuple(self._models.hub_probes(node)),
            deletions=tuple(self._deletions.of(node)),
            log_requests=tuple(self._logs.of(node)),
        )

    @contextlib.contextmanager
    def following(self, node: str) -> Iterator[Marks[str]]:
        """Gives marks that are set whenever the assignment of a node has changed, for the block."""
        marks: Marks[str] = Marks()

        def look(change: RowChange[AssignmentRecord]) -> None:
            if change.key == node:
                marks.mark(node)

        def look_at_wishes(changed: str) -> None:
            if changed == node:
                marks.mark(node)

        with (
            self._intent.assignments.changes.to(look),
            self._models.changes.to(lambda _: marks.mark(node)),
            self._deletions.changes.to(look_at_wishes),
            self._logs.changes.to(look_at_wishes),
        ):
            yield marks
