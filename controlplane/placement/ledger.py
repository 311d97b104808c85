"""Who gets which device, one deployment after the other. Pure: it changes nothing but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from controlplane.model import Node, NodeId, Placement, Wanted
from controlplane.placement.fit import Device, Occupant, Place, devices_of
from controlplane.placement.place import Places, Proposal, place_on
from controlplane.placement.standing import missing_indexes, newest
from controlplane.placement.strategies import STRATEGIES, Strategy


class Ledger:
    """The devices of a fleet, with all that stands on them; what one replica is given the next cannot have."""

    def __init__(
        self,
        nodes: Iterable[Node],
        placements: Iterable[Placement],
        *,
        owners: Mapping[str, Wanted],
        strategies: Mapping[str, Strategy] = STRATEGIES,
    ) -> None:
        """Keeps what is known; nothing of it may change while there is a ledger of it.

        nodes: as last reported. placements: all that stand, of every deployment, also those that are stopping.
        owners: the deployments that are known, by uid. strategies: those that exist, by name.
        """
        self._strategies = strategies
        self._facts = nodes, placements, owners

    # Only once somebody is to be placed: most rounds of the reconciler find all in its place, in a fleet of thousands.
    @cached_property
    def _devices(self) -> dict[Place, Device]:
        nodes, placements, owners = self._facts
        return {each.place: each for each in devices_of(nodes, placements, owners=owners)}

    @cached_property
    def _on(self) -> Mapping[NodeId, Sequence[Place]]:
        on: dict[NodeId, list[Place]] = {}
        for place in self._devices:
            on.setdefault(place[0], []).append(place)
        return on

    @property
    def devices(self) -> Collection[Device]:
        """Returns the devices as they are now, by node."""
        return self._devices.values()

    def fill(self, wanted: Wanted, own: Iterable[Placement]) -> Places:
        """Gives the replicas of a deployment that have no place one. own: its placements."""
        staying = newest(wanted, own)
        missing = missing_indexes(wanted.replica_count, {each.index for each in staying})
        return self.give(wanted, missing, own=staying)

    def give(
        self, wanted: Wanted, indexes: Sequence[int], *, own: Iterable[Placement], avoid: Collection[Place] = ()
    ) -> Places:
        """Gives these replicas of a deployment a place, the best ranked first, as far as they fit.

        own: its placements. avoid: places that are not to be taken.
        """
        if not indexes:
            return Places((), ())
        places = place_on(self.devices, wanted, indexes, own=own, strategies=self._strategies, avoid=avoid)
        for each in places.proposals:
            self._enter(each, wanted)
        for node, count in Counter(each.node for each in places.proposals).items():
            for place in self._on[node]:
                device = self._devices[place]
                self._devices[place] = device.with_node_room(device.node_room - count)
        return places

    def _enter(self, proposal: Proposal, wanted: Wanted) -> None:
        replica = Occupant.expected(f"{proposal.deployment}-{proposal.index}", wanted)
        for gpu in proposal.gpus or (None,):
            place = proposal.node, gpu
            self._devices[place] = self._devices[place].with_occupant(replica)


def in_order(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Returns deployments as they are to be placed: what was made first goes first, whatever the names."""
    return sorted(wanted, key=lambda each: (each.create_revision, each.deployment))
