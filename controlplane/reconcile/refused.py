"""Remembers for a while where replicas were refused: a refusal is no longer reported once the replica was moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from controlplane.model import Node, NodeId, Placement
from controlplane.placement.fit import Place as Spot
from controlplane.placement.moves import ReplicaKey, refusal, refused_spots

REMEMBERED_S = 60.0  # then a device is worth another try
# So is a node without files of the model, of which there may be so many that going round all of them takes minutes.
ALTOGETHER_S = 600.0


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
                is_altogether = placement.replica_uid in nodes[placement.node].refused_altogether
                until_s = now_s + (ALTOGETHER_S if is_altogether else REMEMBERED_S)
                of_replica.update(dict.fromkeys(refused_spots(placement, nodes), until_s))
        recent = {
            replica: {spot: until_s for spot, until_s in of_replica.items() if until_s > now_s}
            for replica, of_replica in self._until_s.items()
        }
        self._until_s = {replica: of_replica for replica, of_replica in recent.items() if of_replica}
