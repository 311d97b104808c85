"""Cached files that nodes are asked to delete. A wish stands only while somebody waits for it; it is not durable."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from controlplane.fleet.changes import Changes
from roundhouse.internal.v1.agent_service_pb2 import CachedModelKey


class Deletions:
    """The wishes, by node."""

    def __init__(self) -> None:
        self._wishes: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self.changes: Changes[str] = Changes()  # bare ids of nodes whose wishes have changed

    def of(self, node: str) -> Sequence[CachedModelKey]:
        """Returns what the node is to delete."""
        wishes = self._wishes.get(node, Counter())
        return [CachedModelKey(repository=repository, commit=commit) for repository, commit in wishes]

    @contextlib.contextmanager
    def wished(self, node: str, key: CachedModelKey) -> Iterator[None]:
        """Asks the node to delete these files, for the block."""
        wish = (key.repository, key.commit)
        self._wishes[node][wish] += 1
        self.changes.tell(node)
        try:
            yield
        finally:
            self._wishes[node][wish] -= 1
            self._wishes[node] += Counter()  # drops what nobody waits for
            if not self._wishes[node]:
                del self._wishes[node]
            self.changes.tell(node)
