"""What each GPU and each host has left, and what keeps replicas off it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from controlplane.model import Engine, Gpu, GpuUuid, Node, NodeId, Placement, ReplicaUid, Taint, Wanted

# What a node is told is one value of the store, which is smaller than 1 MiB: 704 KiB of specs (MAX_SPECS_BYTES), so
# many entries of at most 200 bytes, and the UUIDs of its GPUs. Those that are stopping count until they are gone.
MAX_NODE_REPLICAS = 1000

_BY_INDEX: Callable[[Gpu], int] = attrgetter("index")

Place = tuple[NodeId, GpuUuid | None]  # None: the memory of the host
Slot = tuple[NodeId, tuple[GpuUuid, ...]]  # what one replica has: GPUs of one node, in the order of their indexes


class Obstacle(enum.Enum):
    """What keeps a replica off a device; the first that applies is told."""

    NOT_READY = enum.auto()  # its node does not report
    CORDONED = enum.auto()  # its node takes no new replicas
    FAILED = enum.auto()  # the GPU cannot be used
    NEEDS_GPU = enum.auto()  # a host, and the deployment goes to GPUs
    LABELS = enum.auto()  # its node lacks a label
    TAINT = enum.auto()  # its node has a taint that is not tolerated
    NOT_ALLOWED = enum.auto()  # it is not among the GPUs that may be taken
    AVOIDED = enum.auto()  # its node refused the replica there
    NODE_FULL = enum.auto()  # its node cannot be told of more replicas
    APART = enum.auto()  # a replica is there beside which none of the deployment is to be
    NOT_SHARED = enum.auto()  # taken, and one side or the other does not share
    MEMORY = enum.auto()
    GANG = enum.auto()  # it has room, and its node has not as many such GPUs as a replica needs


@dataclass(frozen=True, slots=True)
class Occupant:
    """What holds memory of a device: a replica, or an engine of ours without one."""

    name: str  # for example `chat-0`; the uid if nothing else is known
    uid: str
    held_bytes: int  # the larger of what is reserved and what is measured
    reserved_bytes: int
    owner: Wanted | None = None  # None: its deployment is not known
    is_reported: bool = True  # its node reports an engine, so that its load shows in the utilization

    @classmethod
    def expected(cls, name: str, wanted: Wanted) -> Occupant:
        """Returns a replica of a deployment that is given its place now."""
        need_bytes = wanted.need.total_bytes
        return cls(name, f"expected {name}", need_bytes, need_bytes, owner=wanted, is_reported=False)

    @property
    def is_exclusive(self) -> bool:
        """Tells whether its deployment shares with nobody."""
        return self.owner is not None and not self.owner.allows_sharing


@dataclass(slots=True)  # not frozen, which would take twice as long to make, and a fleet has thousands of them
class Device:
    """Where replicas can be put: a GPU, or the memory of a host. Nothing changes it."""

    node: NodeId
    gpu: GpuUuid | None
    index: int
    total_bytes: int
    foreign_bytes: int
    utilization_fraction: float
    node_room: int  # how many more replicas its node can be told of
    obstacle: Obstacle | None  # one that holds whatever the replica
    occupants: tuple[Occupant, ...] = ()
    island: int | None = None  # GPUs of a node with the same number are joined by NVLink
    labels: Mapping[str, str] = field(default_factory=dict)  # of its node
    taints: tuple[Taint, ...] = ()  # of its node

    @property
    def place(self) -> Place:
        """Returns what tells it from all others."""
        return self.node, self.gpu

    @property
    def subject(self) -> str:
        """Returns its resource name."""
        return f"nodes/{self.node}" if self.gpu is None else f"nodes/{self.node}/gpus/{self.index}"

    @property
    def words(self) -> str:
        """Returns what people call it."""
        return f"node {self.node}" if self.gpu is None else f"GPU {self.index} of node {self.node}"

    @property
    def reserved_bytes(self) -> int:
        """Returns what is reserved for our replicas, used or not."""
        return sum(each.reserved_bytes for each in self.occupants)

    @property
    def held_bytes(self) -> int:
        """Returns what our replicas hold."""
        return sum(each.held_bytes for each in self.occupants)

    @property
    def available_bytes(self) -> int:
        """Returns what a new replica can have."""
        return max(0, self.total_bytes - self.foreign_bytes - (self.held_bytes if self.occupants else 0))

    def with_occupant(self, occupant: Occupant) -> Device:
        """Returns the device with one more on it."""
        return replace(self, occupants=(*self.occupants, occupant))

    def with_node_room(self, node_room: int) -> Device:
        """Returns the device when its node, be it there or elsewhere, has got replicas."""
        return replace(self, node_room=node_room)


def devices_of(
    nodes: Iterable[Node], placements: Iterable[Placement], *, owners: Mapping[str, Wanted] | None = None
) -> list[Device]:
    """Returns every GPU of the fleet and the memory of every host, by node and index, with what is on it.

    owners: deployments by uid. Of a node the host comes last.
    """
    by_node: dict[NodeId, list[Placement]] = {}
    for each in placements:
        by_node.setdefault(each.node, []).append(each)
    found: list[Device] = []
    for node in sorted(nodes, key=lambda node: node.id):
        here = by_node.get(node.id, ())
        found += _devices_of_node(node, len(here), _Tenants(node, here, owners or {}) if here or node.engines else None)
    return found


def places_of(slot: Slot) -> list[Place]:
    """Returns the places that a slot consists of."""
    return [(slot[0], gpu) for gpu in slot[1]] or [(slot[0], None)]


def usable_gpus(nodes: Iterable[Node]) -> Iterator[Gpu]:
    """Yields the GPUs of a fleet that can be used now. Those of a node that does not report may never come back."""
    return (gpu for node in nodes if node.is_ready for gpu in node.gpus if gpu.is_healthy)


class _Tenants:
    """What is on a node, by GPU; under None what is in the memory of the host."""

    def __init__(self, node: Node, placements: Sequence[Placement], owners: Mapping[str, Wanted]) -> None:
        self._measured: dict[GpuUuid | None, int] = {}
        self._occupants: dict[GpuUuid | None, list[Occupant]] = {}
        running: dict[ReplicaUid, Engine] = {}
        for engine in node.engines:
            if not engine.is_gone:
                running[engine.replica_uid] = engine
                for gpu in engine.gpus or (None,):
                    self._measured[gpu] = self._measured.get(gpu, 0) + engine.measured_bytes
        for each in placements:
            self._enter(_occupant(each, owners, running.get(each.replica_uid)), each.gpus)
        placed = {(each.replica_uid, gpu) for each in placements for gpu in each.gpus or (None,)}
        # Engines without a placement are ours too: orphans, or what a store that was lost had placed.
        for uid, engine in running.items():
            for gpu in engine.gpus or (None,):
                if (uid, gpu) not in placed:
                    self._occupants.setdefault(gpu, []).append(_stray(engine))

    def on(self, gpu: GpuUuid | None) -> tuple[Occupant, ...]:
        """Returns what holds memory of a device, by name."""
        here = self._occupants.get(gpu)
        return tuple(sorted(here, key=lambda each: (each.name, each.held_bytes, each.uid))) if here else ()

    def foreign_bytes(self, gpu: GpuUuid | None, used_bytes: int) -> int:
        """Returns what others than we hold of the memory of a device."""
        return max(0, used_bytes - self._measured.get(gpu, 0))

    def _enter(self, occupant: Occupant, gpus: Sequence[GpuUuid]) -> None:
        for gpu in gpus or (None,):
            self._occupants.setdefault(gpu, []).append(occupant)


def _devices_of_node(node: Node, replica_count: int, tenants: _Tenants | None) -> Iterator[Device]:
    node_room = MAX_NODE_REPLICAS - replica_count
    away = Obstacle.NOT_READY if not node.is_ready else Obstacle.CORDONED if node.is_cordoned else None
    labels, taints = node.labels, node.taints
    for gpu in sorted(node.gpus, key=_BY_INDEX):
        yield Device(
            node.id,
            gpu.uuid,
            gpu.index,
            gpu.total_bytes,
            gpu.used_bytes if tenants is None else tenants.foreign_bytes(gpu.uuid, gpu.used_bytes),
            gpu.utilization_fraction,
            node_room,
            away if gpu.is_healthy else away or Obstacle.FAILED,
            () if tenants is None else tenants.on(gpu.uuid),
            gpu.nvlink_island,
            labels,
            taints,
        )
    used_bytes = max(0, node.host_total_bytes - node.host_available_bytes)
    yield Device(
        node=node.id,
        gpu=None,
        index=0,
        total_bytes=node.host_total_bytes,
        foreign_bytes=used_bytes if tenants is None else tenants.foreign_bytes(None, used_bytes),
        utilization_fraction=0.0,
        node_room=node_room,
        obstacle=away,
        occupants=() if tenants is None else tenants.on(None),
        labels=labels,
        taints=taints,
    )


def _occupant(placement: Placement, owners: Mapping[str, Wanted], engine: Engine | None) -> Occupant:
    reserved = max(placement.reserved_bytes, 0 if engine is None else engine.reserved_bytes)
    return Occupant(
        name=f"{placement.deployment}-{placement.index}",
        uid=placement.replica_uid,
        held_bytes=max(reserved, 0 if engine is None else engine.measured_bytes),
        reserved_bytes=reserved,
        owner=owners.get(placement.deployment_uid),
        is_reported=engine is not None,
    )


def _stray(engine: Engine) -> Occupant:
    held = max(engine.reserved_bytes, engine.measured_bytes)
    return Occupant(engine.replica_uid, engine.replica_uid, held, engine.reserved_bytes)
