"""Which cluster this is, and how often its control plane has started."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from controlplane import wire
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import ClusterRecord


@dataclass(frozen=True, slots=True)
class Term:
    """One start of the control plane. Orders of a later term go before those of an earlier one."""

    cluster_id: str
    number: int


def later_term(record: ClusterRecord, others: Iterable[ClusterRecord], now_s: float) -> ClusterRecord:
    """Returns a cluster of a store of long ago with a term behind all that were begun since.

    How many that were, the store does not know, and neither do `others`, those that are known of, if they are of the
    same cluster. So milliseconds since 1970 are taken, which no count of starts catches up with: a store that is
    restored twice goes before what was ordered after it was restored once.
    """
    known = [each.term for each in others if each.cluster_id == record.cluster_id]
    return ClusterRecord(cluster_id=record.cluster_id, term=max(record.term, *known, int(now_s * 1000)))


async def begin_term(store: Store) -> Term:
    """Counts this start, durably; the first gives the cluster its id. Raises Conflict if another starts as well."""
    entry = await store.get(wire.CLUSTER_KEY)
    record = ClusterRecord(cluster_id=str(uuid.uuid4())) if entry is None else ClusterRecord.FromString(entry.value)
    record.term += 1
    compare = Compare(wire.CLUSTER_KEY, 0 if entry is None else entry.revision)
    await store.commit([compare], {wire.CLUSTER_KEY: record.SerializeToString()})
    return Term(record.cluster_id, record.term)
