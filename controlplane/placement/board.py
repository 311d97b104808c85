"""The devices of the fleet while replicas of one deployment are put on them. Pure: it changes nothing but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from controlplane.model import NodeId, Wanted
from controlplane.placement.fit import Device, Occupant, Place
from controlplane.placement.strategies import Rank, Strategy


class Board:
    """Devices, with what is on them, how many replicas of the deployment each has room for, and how they rank."""

    def __init__(self, wanted: Wanted, devices: Iterable[Device], strategy: Strategy) -> None:
        self._wanted, self._strategy = wanted, strategy
        self._devices = {device.place: device for device in devices}
        self._node_counts: Counter[NodeId] = Counter()  # replicas of anybody
        for device in self._devices.values():
            self._node_counts[device.node] += len(device.occupants)
        self._rooms = {place: self._room(device) for place, device in self._devices.items()}
        self._ranks = {place: self._rank(device) for place, device in self._devices.items()}

    @property
    def devices(self) -> Iterable[Device]:
        """Returns the devices as they are now."""
        return self._devices.values()

    @property
    def rooms(self) -> Mapping[Place, int]:
        """Returns how many more replicas fit, by place."""
        return self._rooms

    def rank(self, place: Place) -> Rank:
        """Returns how good a place is; the smaller, the better."""
        return self._ranks[place]

    def put(self, place: Place, name: str) -> None:
        """Puts one replica on a place that has room."""
        assert self._rooms[place] > 0, f"{name} does not fit on {place}"
        need_bytes = self._wanted.need.total_bytes
        is_exclusive = not self._wanted.allows_sharing
        replica = Occupant(name, need_bytes, need_bytes, is_exclusive=is_exclusive, is_reported=False)
        changed = self._devices[place].with_occupant(replica)
        self._devices[place] = changed
        self._rooms[place] = self._room(changed)
        self._node_counts[changed.node] += 1
        for other in self._devices.values():  # of the same node: how many replicas it has is part of the rank
            if other.node == changed.node:
                self._ranks[other.place] = self._rank(other)

    def copy(self) -> Board:
        """Returns another board to try things on."""
        return Board(self._wanted, self._devices.values(), self._strategy)

    def _room(self, device: Device) -> int:
        return device.room(self._wanted.need.total_bytes, is_exclusive=not self._wanted.allows_sharing)

    def _rank(self, device: Device) -> Rank:
        return self._strategy(device, self._node_counts[device.node])
