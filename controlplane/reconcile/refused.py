"""Remembers for a while where replicas were refused: a refusal is no longer reported once the replica was moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from controlplane.model import Node, NodeId, Placement
from controlplane.placement.fit import Place as Spot
from controlplane.plan import ReplicaKey, refusal, spots

REMEMBERED_S = 60.0  # then a device is worth another try


class Refused:
    """The devices on which each replica was refused lately."""

    def __init__(self) -> None:
        self._until_s: dict[ReplicaKey, dict[Spot, float]] = {}

    @property
    def spots(self) -> Mapping[ReplicaKey, Collection[Spot]]:
        """Returns the devices by replica."""
        return self._until_s

    def note(self, placements: Sequence[Placement], nodes: Mapping[NodeId, Node], now_s: float) -> None:
        """Takes over what nodes refuse now, and forgets what is long ago."""
        for placement in placements:
            if refusal(placement, nodes) is not None:
                of_replica = self._until_s.setdefault((placement.deployment_uid, placement.index), {})
                of_replica.update(dict.fromkeys(spots(placement), now_s + REMEMBERED_S))
        recent = {
            replica: {spot: until_s for spot, until_s in of_replica.items() if until_s > now_s}
            for replica, of_replica in self._until_s.items()
        }
        self._until_s = {replica: of_replica for replica, of_replica in recent.items() if of_replica}
