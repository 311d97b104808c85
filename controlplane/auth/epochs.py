"""Which certificates of a node still count: each carries an epoch, and those below that of the node are revoked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from controlplane import wire
from controlplane.fleet.changes import Changes
from controlplane.fleet.table import RowChange, Table
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import NodeEpochRecord
from roundhouse.kit.errors import Conflict

_ATTEMPTS = 3


class Epochs:
    """Reads and writes the epochs of nodes; that of a node of which nothing was revoked is 0.

    `ended` tells the ids of the nodes whose certificates were revoked.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._table = Table(store, wire.NODE_EPOCHS, NodeEpochRecord.FromString)
        self.ended: Changes[str] = Changes()

    def of(self, node: str) -> int:
        """Returns the epoch of a node, by its bare id."""
        row = self._table.rows.get(node)
        return 0 if row is None else row.value.epoch

    async def revoke(self, node: str) -> None:
        """Lets none of the certificates count that a node has by now."""
        key = wire.node_epoch_key(node)
        for attempt in range(_ATTEMPTS):
            entry = await self._store.get(key)
            record = NodeEpochRecord() if entry is None else NodeEpochRecord.FromString(entry.value)
            record.epoch += 1
            compare = Compare(key, 0 if entry is None else entry.revision)
            try:
                revision = await self._store.commit([compare], {key: record.SerializeToString()})
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            await self._table.shown(revision)
            return

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Loads the epochs, then keeps them up to date for the block."""
        with self._table.changes.to(self._take):
            async with self._table.kept():
                yield

    def _take(self, change: RowChange[NodeEpochRecord]) -> None:
        if change.before is not None or self.of(change.key):  # else it is a node's first certificate
            self.ended.tell(change.key)
