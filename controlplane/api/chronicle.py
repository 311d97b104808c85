"""Looks at deployments, replicas and nodes whenever they change, and notes what happened to them since."""

from __future__ import annotations

import asyncio

import structlog

from controlplane import wire
from controlplane.api.event_log import EventLog, by_object
from controlplane.api.statuses import Statuses
from controlplane.events.happenings import DeploymentSight, NodeSight, between, between_nodes, see
from controlplane.fleet.changes import Marks
from controlplane.fleet.registry import NodeChange, Registry
from roundhouse.v1 import node_pb2

log = structlog.get_logger()

PERIOD_S = 0.1  # between two looks: what happens within is told by what is seen at its end
_STATES: dict[node_pb2.NodeState, NodeSight] = {
    node_pb2.NODE_STATE_READY: "up",
    node_pb2.NODE_STATE_LOST: "lost",
}


class Chronicle:
    """What was seen last of everything. After a start, the first look is taken as it is."""

    def __init__(self, statuses: Statuses, registry: Registry, events: EventLog) -> None:
        self._statuses, self._registry, self._events = statuses, registry, events
        self._deployments: dict[str, DeploymentSight] = {}
        self._nodes: dict[str, NodeSight] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        marks: Marks[str] = Marks()  # names

        def mark_node(change: NodeChange) -> None:
            before = None if change.before is None else change.before.state
            if change.after is None or before != change.after.state:
                marks.mark(wire.NODE.format(change.node))

        def mark_deployment(deployment: str) -> None:
            marks.mark(wire.DEPLOYMENT.format(deployment))

        with self._statuses.turns.to(mark_deployment), self._registry.changes.to(mark_node):
            self._begin()
            while True:
                for name in await marks.take():
                    try:
                        self._look(name)
                    except Exception as error:
                        # Raised, it would end this process, and at each of its starts, for the sake of a story.
                        log.error("what happened cannot be told", object=name, error=str(error), exc_info=error)
                await asyncio.sleep(PERIOD_S)

    def _begin(self) -> None:
        for deployment in self._statuses.ids():
            self._statuses.get(deployment)
            self._see(deployment)
        # Nodes have yet to join. Which were there is known by the last that happened to them.
        told: dict[str, NodeSight] = {"Joined": "up", "Returned": "up", "Lost": "lost"}
        events = {place: row.value for place, row in self._events.table.rows.items()}
        for name, event in by_object(events).items():
            ids = wire.NODE.match(name)
            if ids is not None:
                self._nodes[ids[0]] = told.get(event.reason, "")

    def _look(self, name: str) -> None:
        if (ids := wire.DEPLOYMENT.match(name)) is not None:
            before = self._deployments.get(ids[0])
            self._events.note(between(name, before, self._see(ids[0])))
        elif (ids := wire.NODE.match(name)) is not None:
            self._look_at_node(ids[0])

    def _see(self, deployment: str) -> DeploymentSight | None:
        status = self._statuses.last(deployment)
        if status is None:
            self._deployments.pop(deployment, None)
            return None
        before = self._deployments.get(deployment)
        after = self._deployments[deployment] = see(before, status.deployment, status.replicas)
        return after

    def _look_at_node(self, node: str) -> None:
        known = self._registry.known.get(node)
        if known is None:
            self._nodes.pop(node, None)  # forgotten a day after it was lost
            return
        after = _STATES.get(known.state)
        if after is not None:
            self._events.note(between_nodes(node, self._nodes.get(node, ""), after))
            self._nodes[node] = after
