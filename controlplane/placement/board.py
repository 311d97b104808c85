"""The devices of the fleet while replicas of one deployment are put on them. Pure: it changes nothing but itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from math import inf, isfinite

from controlplane.model import NodeId, Wanted
from controlplane.placement import gangs
from controlplane.placement.fit import Device, Obstacle, Occupant, Place, Slot, places_of
from controlplane.placement.shelves import Rank, Rules, Shelf, shelve
from controlplane.placement.strategies import Candidate, Strategy

BAND = 0.05  # differences in utilization below this are noise

Key = tuple[bool, Rank, NodeId, tuple[int, ...]]  # (is not within one NVLink island, of its worst GPU, node, indexes)
Terms = tuple[tuple[str, float], ...]


class StrategyFailed(Exception):
    """A strategy raised, or returned what cannot be compared."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A slot that has room, and how good it is; the smaller, the better."""

    key: Key
    slot: Slot


class Board:
    """Devices, with what is on them, how many replicas of the deployment each has room for, and how they rank."""

    def __init__(
        self,
        wanted: Wanted,
        devices: Iterable[Device],
        strategy: Strategy,
        *,
        gpus_per_replica: int,
        own: Mapping[Slot, int],
        avoid: Collection[Place] = (),
        moving: Collection[str] = (),
    ) -> None:
        """Takes stock.

        devices: all of the fleet; those of a node together. own: replicas of the deployment that stay, by slot. avoid:
        places that are not to be taken. moving: uids of the replicas that give up where they are.
        Raises StrategyFailed.
        """
        self.gpus_per_replica, self.own = gpus_per_replica, own
        self._wanted, self._strategy = wanted, strategy
        on_hosts = gpus_per_replica == 0
        self._rules = Rules(wanted, on_hosts=on_hosts, avoid=avoid, moving=moving)
        self._shelves: dict[NodeId, Shelf] = {}
        least_load = inf
        for shelf, on_node in shelve(devices, own, on_hosts=on_hosts):
            self._rules.enter(shelf, on_node)
            self._shelves[shelf.node] = shelf
            least_load = min([least_load, *[load for load, room in zip(shelf.loads, shelf.rooms, strict=True) if room]])
        self._least_load = least_load if isfinite(least_load) else 0.0
        for shelf in self._shelves.values():
            shelf.ranks = [self._rank(shelf, at) if room else None for at, room in enumerate(shelf.rooms)]

    @property
    def devices(self) -> Iterator[Device]:
        """Yields the devices that count for the deployment, as they are now."""
        return (device for shelf in self._shelves.values() for device in shelf.devices)

    @property
    def nodes(self) -> Collection[NodeId]:
        """Returns the nodes that have such devices."""
        return self._shelves.keys()

    def capacity(self, node: NodeId) -> int:
        """Returns how many more replicas fit on a node."""
        shelf = self._shelves[node]
        return gangs.most(shelf.rooms, max(1, self.gpus_per_replica), self._most_on(shelf))

    def best(self, node: NodeId, spare: int) -> Offer | None:
        """Returns the best slot of a node.

        spare: how many replicas fewer the node may hold in the end than it could, because GPUs with room are left over
        of which too few are different ones.
        """
        shelf = self._shelves[node]
        open_at = [at for at, room in enumerate(shelf.rooms) if room > 0]
        if not open_at or self._most_on(shelf) <= 0:
            return None
        if self.gpus_per_replica <= 1:
            rank, at = min([(self._ranked(shelf, at), at) for at in open_at])
            device = shelf.devices[at]
            slot = node, () if device.gpu is None else (device.gpu,)
            return Offer((False, rank, node, (device.index,)), slot)
        capacity = self.capacity(node)
        if capacity == 0:
            return None
        ranked = sorted(open_at, key=lambda at: (self._ranked(shelf, at), at))
        chosen = gangs.choose(
            [shelf.rooms[at] for at in ranked],
            [shelf.devices[at].island for at in ranked],
            self.gpus_per_replica,
            capacity - 1 - spare,
        )
        return min((self._offer(shelf, [ranked[at] for at in each]) for each in chosen), key=lambda each: each.key)

    def slots(self, most: int, taken: Collection[Slot]) -> Mapping[Slot, int]:
        """Returns disjoint slots and how many replicas each has room for, so that no others would have room for more.

        most: what is more than that is of no use. taken: slots whose GPUs are not to be among them.
        """
        taken_places = {place for slot in taken for place in places_of(slot)}
        found: dict[Slot, int] = {}
        for shelf in self._shelves.values():
            open_at = [
                at for at, room in enumerate(shelf.rooms) if room > 0 and shelf.devices[at].place not in taken_places
            ]
            if not open_at:
                continue
            open_at.sort(key=lambda at: (self._ranked(shelf, at), at))
            rooms = [min(most, shelf.rooms[at]) for at in open_at]
            groups = gangs.divide(rooms, [shelf.devices[at].island for at in open_at], max(1, self.gpus_per_replica))
            offers = [
                (self._offer(shelf, [open_at[at] for at in group]), min(rooms[at] for at in group)) for group in groups
            ]
            if self._rules.own_scope == "node":
                offers = sorted(offers, key=lambda each: each[0].key)[:1]
            found.update((offer.slot, room) for offer, room in offers)
        return found

    def room(self, slot: Slot) -> int:
        """Returns how many more replicas fit on a slot."""
        shelf = self._shelves.get(slot[0])
        return 0 if shelf is None else min((shelf.rooms[at] for at in shelf.positions(slot)), default=0)

    def offer(self, slot: Slot) -> Offer:
        """Returns how good a slot is that has, or had, room."""
        shelf = self._shelves[slot[0]]
        return self._offer(shelf, shelf.positions(slot))

    def put(self, slot: Slot, name: str) -> None:
        """Puts one replica on a slot that has room. Raises StrategyFailed."""
        assert self.room(slot) > 0, f"{name} does not fit on {slot}"
        shelf = self._shelves[slot[0]]
        replica = Occupant.expected(name, self._wanted)
        shelf.put(shelf.positions(slot), replica)
        if self._rules.own_scope == "node":
            shelf.neighbour = replica
        shelf.rooms = [self._rules.room(shelf, at) if room else 0 for at, room in enumerate(shelf.rooms)]
        shelf.ranks = [None if rank is None else self._rank(shelf, at) for at, rank in enumerate(shelf.ranks)]

    def copy(self) -> Board:
        """Returns another board to try things on."""
        other = copy(self)
        other._shelves = {node: shelf.copy() for node, shelf in self._shelves.items()}
        return other

    def obstacle(self, device: Device) -> Obstacle | None:
        """Returns what keeps replicas off one of the devices; None if one fits."""
        shelf = self._shelves[device.node]
        found = self._rules.obstacle(shelf, self._at(shelf, device))
        return Obstacle.GANG if found is None and self.capacity(device.node) == 0 else found

    def neighbour(self, device: Device) -> Occupant | None:
        """Returns the replica beside which none of the deployment may be, on a device or on its node."""
        return self._shelves[device.node].neighbour or self._rules.neighbour(device, "gpu")

    def roomy(self, node: NodeId) -> int:
        """Returns on how many devices of a node a replica, or its part of it, would fit."""
        return sum(room > 0 for room in self._shelves[node].rooms)

    def node_room(self, node: NodeId) -> int:
        """Returns how many more replicas a node can be told of."""
        return self._shelves[node].room

    def terms(self, device: Device) -> Terms:
        """Returns what the strategy ranks one of the devices by. Raises StrategyFailed."""
        shelf = self._shelves[device.node]
        at = self._at(shelf, device)
        values = self._rank(shelf, at)  # which raises what the next line might
        names = [name for name, _ in self._strategy(self._candidate(shelf, at))]
        return tuple(zip(names, values, strict=True))

    def _most_on(self, shelf: Shelf) -> int:
        return min(1, shelf.room) if self._rules.own_scope == "node" else shelf.room

    def _offer(self, shelf: Shelf, positions: list[int]) -> Offer:
        devices = sorted((shelf.devices[at] for at in positions), key=lambda device: device.index)
        worst = max(self._ranked(shelf, at) for at in positions)
        islands = {device.island for device in devices}
        is_split = len(devices) > 1 and (len(islands) > 1 or None in islands)
        gpus = tuple(device.gpu for device in devices if device.gpu is not None)
        return Offer((is_split, worst, shelf.node, tuple(device.index for device in devices)), (shelf.node, gpus))

    def _ranked(self, shelf: Shelf, at: int) -> Rank:
        rank = shelf.ranks[at]
        return self._rank(shelf, at) if rank is None else rank

    def _rank(self, shelf: Shelf, at: int) -> Rank:
        try:
            values = [value for _, value in self._strategy(self._candidate(shelf, at))]
            if isfinite(sum(values)):
                return tuple(values)
        except Exception as error:  # whatever somebody else's code may raise
            raise StrategyFailed(f"{type(error).__name__}: {error}") from error
        raise StrategyFailed(f"it ranks {shelf.devices[at].words} by {values}, which are no finite numbers")

    def _candidate(self, shelf: Shelf, at: int) -> Candidate:
        device, load = shelf.devices[at], shelf.loads[at]
        return Candidate(
            shelf.node,
            device.gpu or "",
            device.index,
            device.total_bytes,
            shelf.available[at],
            load,
            max(0, int((load - self._least_load) / BAND + 1e-9)),  # 0.15 / 0.05 is a little less than 3
            len(device.occupants),
            shelf.replica_count,
            shelf.own_counts[at],
            shelf.own_count,
        )

    def _at(self, shelf: Shelf, device: Device) -> int:
        return next(at for at, each in enumerate(shelf.devices) if each.gpu == device.gpu)
