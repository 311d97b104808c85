"""The devices of the fleet while replicas of one deployment are put on them. Pure: it changes nothing but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy

from controlplane.model import NodeId, Wanted
from controlplane.placement.fit import Device, Occupant, Place
from controlplane.placement.strategies import Rank, Strategy


class Board:
    """Devices, with what is on them, how many replicas of the deployment each has room for, and how they rank."""

    def __init__(self, wanted: Wanted, devices: Iterable[Device], strategy: Strategy) -> None:
        self._wanted, self._strategy = wanted, strategy
        self._devices = {device.place: device for device in devices}
        self._on: dict[NodeId, list[Place]] = {}
        self._node_counts: Counter[NodeId] = Counter()  # replicas of anybody
        self._node_rooms: dict[NodeId, int] = {}
        for place, device in self._devices.items():
            self._on.setdefault(device.node, []).append(place)
            self._node_counts[device.node] += len(device.occupants)
            self._node_rooms[device.node] = device.node_room
        self._rooms = {place: self._room(device) for place, device in self._devices.items()}
        self._ranks = {place: self._rank(device) for place, device in self._devices.items()}

    @property
    def devices(self) -> Iterable[Device]:
        """Returns the devices as they are now."""
        return self._devices.values()

    @property
    def rooms(self) -> Mapping[Place, int]:
        """Returns how many more replicas fit, by place; all places of a node together may take fewer."""
        return self._rooms

    def rank(self, place: Place) -> Rank:
        """Returns how good a place is; the smaller, the better."""
        return self._ranks[place]

    def put(self, place: Place, name: str) -> None:
        """Puts one replica on a place that has room."""
        assert self._rooms[place] > 0, f"{name} does not fit on {place}"
        replica = Occupant.expected(name, self._wanted)
        device = self._devices[place] = self._devices[place].with_occupant(replica)
        self._rooms[place] = self._room(device)
        self.crowd(device.node)

    def crowd(self, node: NodeId) -> None:
        """Counts one replica more on a node: its places rank lower, and it can be told of fewer."""
        self._node_counts[node] += 1
        left = self._node_rooms[node] = max(0, self._node_rooms[node] - 1)
        for place in self._on[node]:
            if not left:
                self._devices[place] = self._devices[place].with_node_room(0)
            self._rooms[place] = min(left, self._rooms[place])
            self._ranks[place] = self._rank(self._devices[place])

    def copy(self) -> Board:
        """Returns another board to try things on."""
        other = copy(self)
        other._devices, other._rooms, other._ranks = dict(self._devices), dict(self._rooms), dict(self._ranks)
        other._node_counts, other._node_rooms = self._node_counts.copy(), dict(self._node_rooms)
        return other

    def _room(self, device: Device) -> int:
        return device.room(self._wanted.need.total_bytes, is_exclusive=not self._wanted.allows_sharing)

    def _rank(self, device: Device) -> Rank:
        return self._strategy(device, self._node_counts[device.node])
