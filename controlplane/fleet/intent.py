"""What is wanted and placed, in memory, as the store last told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from controlplane import wire
from controlplane.fleet.changes import Changes
from controlplane.fleet.table import Records, RowChange, Table
from controlplane.model import NodeId, NodeWish, Placement
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord, NodeRecord, PlacementRecord


class Intent:
    """Copies of what the store has of deployments, placements, assignments and nodes.

    Placements can be found by deployment and by node.
    """

    def __init__(self, records: Records) -> None:
        self.deployments = Table(records, wire.DEPLOYMENTS, DeploymentRecord.FromString)
        self.placements = Table(records, wire.PLACEMENTS, _placement)
        self.assignments = Table(records, wire.ASSIGNMENTS, AssignmentRecord.FromString)
        self.nodes = Table(records, wire.NODES, NodeRecord.FromString)  # those that are cordoned
        self.changes: Changes[str] = Changes()  # bare ids of deployments of which the record or a placement changed
        self._of: dict[str, dict[str, Placement]] = defaultdict(dict)
        self._on: dict[str, dict[str, Placement]] = defaultdict(dict)

    def placements_of(self, deployment: str) -> Sequence[Placement]:
        """Returns the placements under a bare deployment id, also those of a deployment of that name that is gone."""
        return list(self._of.get(deployment, {}).values())

    def placements_on(self, node: str) -> Sequence[Placement]:
        """Returns the placements on a node."""
        return list(self._on.get(node, {}).values())

    def wishes(self) -> Mapping[NodeId, NodeWish]:
        """Returns what is wanted of the nodes that are cordoned."""
        return {NodeId(node): wire.node_wish(row.value) for node, row in self.nodes.rows.items()}

    def placed_nodes(self) -> Iterator[str]:
        """Yields the ids of the nodes on which something is placed."""
        yield from self._on

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Loads everything, then keeps it up to date for the block."""
        tables = (self.deployments, self.placements, self.assignments, self.nodes)
        with (
            self.deployments.changes.to(lambda change: self.changes.tell(change.key)),
            self.placements.changes.to(self._index),
        ):
            for table in tables:
                await table.load()
            async with asyncio.TaskGroup() as following:
                tasks = [following.create_task(each.follow(), name=f"follow {each.prefix}") for each in tables]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()

    def _index(self, change: RowChange[Placement]) -> None:
        for row, is_there in ((change.before, False), (change.after, True)):
            if row is not None:
                placement = row.value
                for index, key in ((self._of, placement.deployment), (self._on, str(placement.node))):
                    if is_there:
                        index[key][change.key] = placement
                    else:
                        del index[key][change.key]
                        if not index[key]:
                            del index[key]
                self.changes.tell(placement.deployment)


def _placement(record: bytes) -> Placement:
    return wire.placement(PlacementRecord.FromString(record))
