"""Reads what the store holds of intent, and parses only what was written since the last time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from controlplane import wire
from controlplane.model import Need, NodeId, Wanted
from controlplane.reconcile.snapshot import Basis, Snapshot
from controlplane.store.protocol import Entry, Listing
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord, NodeRecord, PlacementRecord

M = TypeVar("M")


class Lists(Protocol):
    """What reading needs of the store."""

    async def list(self, prefix: str) -> Listing:
        """Returns the entries under a prefix."""


class Reader:
    """Reads snapshots, one after the other."""

    def __init__(self, store: Lists, term: int) -> None:
        self._store, self._term = store, term
        self._deployments = _Kind(wire.DEPLOYMENTS, _deployment)
        self._placements = _Kind(wire.PLACEMENTS, lambda entry: wire.placement(PlacementRecord.FromString(entry.value)))
        self._assignments = _Kind(wire.ASSIGNMENTS, lambda entry: AssignmentRecord.FromString(entry.value))
        self._wishes = _Kind(wire.NODES, lambda entry: wire.node_wish(NodeRecord.FromString(entry.value)))
        self._settled: dict[NodeId, Basis] = {}

    async def read(self) -> Snapshot:
        """Reads what the store holds; kind by kind, so a change's compares notice what was written in between."""
        deployments = await self._deployments.read(self._store)
        placements = await self._placements.read(self._store)
        assignments = await self._assignments.read(self._store)
        wishes = await self._wishes.read(self._store)
        known = {NodeId(key.removeprefix(wire.ASSIGNMENTS)): row for key, row in assignments.items()}
        self._settled = {node: basis for node, basis in self._settled.items() if node in known}
        return Snapshot(
            wanted=tuple(row.value.wanted for row in deployments.values() if row.value.wanted is not None),
            placements=tuple(row.value for row in placements.values()),
            wishes={NodeId(key.removeprefix(wire.NODES)): row.value for key, row in wishes.items()},
            orders={node: (self._term, row.revision) for node, row in known.items()},
            _term=self._term,
            _records={row.value.record.deployment.uid: row.value.record for row in deployments.values()},
            _assignments={node: row.value for node, row in known.items()},
            _revisions={
                key: row.revision
                for rows in (deployments, placements, assignments, wishes)
                for key, row in rows.items()
            },
            _settled=self._settled,
        )


@dataclass(frozen=True, slots=True)
class _Row(Generic[M]):
    revision: int
    value: M


class _Kind(Generic[M]):
    """All records of one kind, as they were read last."""

    def __init__(self, prefix: str, parse: Callable[[Entry], M]) -> None:
        self._prefix, self._parse = prefix, parse
        self._rows: Mapping[str, _Row[M]] = {}

    async def read(self, store: Lists) -> Mapping[str, _Row[M]]:
        """Returns the records by key, in the order of the keys."""
        before = self._rows
        listing = await store.list(self._prefix)
        self._rows = {each.key: self._row(each, before.get(each.key)) for each in listing.entries}
        return self._rows

    def _row(self, entry: Entry, before: _Row[M] | None) -> _Row[M]:
        if before is not None and before.revision == entry.revision:
            return before
        return _Row(entry.revision, self._parse(entry))


@dataclass(frozen=True, slots=True)
class _Deployment:
    record: DeploymentRecord
    wanted: Wanted | None  # None: it waits until its need is known


def _deployment(entry: Entry) -> _Deployment:
    record = DeploymentRecord.FromString(entry.value)
    wanted = wire.wanted(record) or _deleting(record)
    return _Deployment(record, None if wanted is None else replace(wanted, create_revision=entry.create_revision))


def _deleting(record: DeploymentRecord) -> Wanted | None:
    deployment = record.deployment
    if not deployment.HasField("delete_time"):
        return None
    (name,) = wire.DEPLOYMENT.parse(deployment.name)
    return Wanted(
        deployment=name,
        uid=deployment.uid,
        generation=deployment.generation,
        replica_count=0,
        need=Need(0),
        strategy="",
        gpu_count=None,
        allows_sharing=True,
        is_deleting=True,
    )
