"""The devices of one node as they stand for one deployment, and what keeps its replicas off them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controlplane.model import NodeId, Wanted
from controlplane.placement.constraints import Scope, apart, barred
from controlplane.placement.fit import Device, Obstacle, Occupant, Place, Slot, places_of

# An engine says nothing of its load before it runs: until then it counts as this much, so that equal GPUs take turns.
UNREPORTED_LOAD = 0.2

Rank = tuple[float, ...]


@dataclass(slots=True)
class Shelf:
    """The devices of one node on which replicas of the deployment may go. What is by device is in their order."""

    node: NodeId
    devices: list[Device]
    room: int  # how many more replicas the node can be told of
    replica_count: int  # of anybody
    own_count: int
    own_counts: list[int]  # by device
    available: list[int]  # bytes by device
    loads: list[float]  # by device: utilization, with what was placed and is not reported yet
    barred: list[Obstacle | None] = field(default_factory=list)  # by device: what stands against it in any case
    neighbour: Occupant | None = None  # keeps the deployment off the whole node
    rooms: list[int] = field(default_factory=list)  # replicas by device
    ranks: list[Rank | None] = field(default_factory=list)  # by device; None: it never had room

    def put(self, positions: Iterable[int], replica: Occupant) -> None:
        """Enters one replica of the deployment on all of these devices. Rooms and ranks are for the caller to renew."""
        for at in positions:
            device = self.devices[at] = self.devices[at].with_occupant(replica)
            self.own_counts[at] += 1
            self.available[at], self.loads[at] = device.available_bytes, _load(device)
        self.replica_count += 1
        self.own_count += 1
        self.room = max(0, self.room - 1)

    def positions(self, slot: Slot) -> list[int]:
        """Returns which of the devices a slot consists of."""
        gpus = slot[1] or (None,)
        return [at for at, device in enumerate(self.devices) if device.gpu in gpus]

    def copy(self) -> Shelf:
        """Returns another one to try things on."""
        return replace(
            self,
            devices=[*self.devices],
            own_counts=[*self.own_counts],
            available=[*self.available],
            loads=[*self.loads],
            rooms=[*self.rooms],
            ranks=[*self.ranks],
        )


def shelve(
    devices: Iterable[Device], own: Mapping[Slot, int], *, on_hosts: bool
) -> Iterator[tuple[Shelf, list[Device]]]:
    """Yields the shelf of every node, and all devices of the node.

    own: replicas of the deployment that stay, by slot. on_hosts: only hosts are for it; else GPUs, and the hosts of
    nodes without, of which it is to be said that they have none.
    """
    by_node: dict[NodeId, list[Device]] = {}
    for device in devices:
        by_node.setdefault(device.node, []).append(device)
    own_counts: dict[Place, int] = {}
    own_node_counts: dict[NodeId, int] = {}
    for slot, count in own.items():
        own_node_counts[slot[0]] = own_node_counts.get(slot[0], 0) + count
        for place in places_of(slot):
            own_counts[place] = own_counts.get(place, 0) + count
    for node, on_node in by_node.items():
        gpus = [] if on_hosts else [device for device in on_node if device.gpu is not None]
        here = gpus or [device for device in on_node if device.gpu is None]
        is_empty = not any(device.occupants for device in on_node)
        shelf = Shelf(
            node,
            here,
            on_node[0].node_room,
            0 if is_empty else len({each.uid for device in on_node for each in device.occupants}),
            own_node_counts.get(node, 0),
            [own_counts.get(device.place, 0) for device in here] if own_counts else [0] * len(here),
            [device.available_bytes for device in here],
            [device.utilization_fraction for device in here] if is_empty else [_load(device) for device in here],
        )
        yield shelf, on_node


class Rules:
    """What keeps replicas of one deployment off devices."""

    def __init__(
        self, wanted: Wanted, *, on_hosts: bool, avoid: Collection[Place] = (), moving: Collection[str] = ()
    ) -> None:
        """avoid: places that are not to be taken. moving: uids of replicas that give up where they are."""
        self._wanted, self._on_hosts = wanted, on_hosts
        self._need_bytes = wanted.need.total_bytes
        self._is_exclusive = not wanted.allows_sharing
        self._is_choosy = bool(wanted.node_labels or wanted.allowed_gpus)
        self._avoid, self._moving = frozenset(avoid), frozenset(moving)
        self._scopes: dict[str, Scope | None] = {}  # by uid of the other deployment
        self.own_scope = apart(wanted, wanted)

    def enter(self, shelf: Shelf, on_node: Iterable[Device]) -> None:
        """Fills in what stands against the devices of a shelf, and how many replicas each has room for."""
        shelf.barred = [self._barred(device) for device in shelf.devices]
        if shelf.replica_count:
            found = (self.neighbour(device, "node") for device in on_node)
            shelf.neighbour = next((each for each in found if each is not None), None)
        shelf.rooms = [self.room(shelf, at) for at in range(len(shelf.devices))]

    def obstacle(self, shelf: Shelf, at: int) -> Obstacle | None:
        """Returns what keeps a replica, or its part of it, off one device; None if it fits."""
        if shelf.barred[at] is not None:
            return shelf.barred[at]
        if shelf.room <= 0:
            return Obstacle.NODE_FULL
        if shelf.neighbour is not None:
            return Obstacle.APART
        device = shelf.devices[at]
        if device.occupants:
            if self.neighbour(device, "gpu") is not None:
                return Obstacle.APART
            # Hosts are shared whatever anybody says: that is about GPUs.
            if device.gpu and (self._is_exclusive or any(each.is_exclusive for each in device.occupants)):
                return Obstacle.NOT_SHARED
        return Obstacle.MEMORY if shelf.available[at] < self._need_bytes else None

    def room(self, shelf: Shelf, at: int) -> int:
        """Returns how many replicas, or parts of them, fit on one device."""
        # The numbers first: there are thousands of devices, and most of them have no occupants.
        if shelf.available[at] < self._need_bytes or shelf.barred[at] is not None:
            return 0
        device = shelf.devices[at]
        if (device.occupants or shelf.room <= 0 or shelf.neighbour) and self.obstacle(shelf, at) is not None:
            return 0
        if (self._is_exclusive and device.gpu) or self.own_scope is not None:
            return 1
        return min(shelf.room, shelf.available[at] // max(1, self._need_bytes))

    def neighbour(self, device: Device, scope: Scope) -> Occupant | None:
        """Returns a replica on a device beside which none of the deployment may be, at this distance."""
        return next((each for each in device.occupants if self._scope(each) == scope), None)

    def _scope(self, occupant: Occupant) -> Scope | None:
        owner = occupant.owner
        if owner is None or occupant.uid in self._moving:
            return None
        if owner.uid not in self._scopes:
            self._scopes[owner.uid] = apart(self._wanted, owner)
        return self._scopes[owner.uid]

    def _barred(self, device: Device) -> Obstacle | None:
        if device.obstacle is not None:
            return device.obstacle
        if device.gpu is None and (not self._on_hosts or self._wanted.is_for_gpus):
            return Obstacle.NEEDS_GPU
        if self._is_choosy or device.taints:
            found = barred(self._wanted, device)
            if found is not None:
                return found
        return Obstacle.AVOIDED if self._avoid and device.place in self._avoid else None


def _load(device: Device) -> float:
    return device.utilization_fraction + UNREPORTED_LOAD * sum([not each.is_reported for each in device.occupants])
