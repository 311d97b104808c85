"""What each GPU has left, and what keeps a replica off it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.model import Engine, Gpu, GpuUuid, Node, NodeId, Placement, ReplicaUid, Wanted

# What a node is told is one value of the store, which is smaller than 1 MiB: 768 KiB of specs (MAX_SPECS_BYTES), and so
# many entries of at most 256 bytes, which are 250 KiB. Those that are stopping count until they are gone.
MAX_NODE_REPLICAS = 1000

Place = tuple[NodeId, GpuUuid | None]  # None: the memory of a host without GPUs


class Obstacle(enum.Enum):
    """What keeps a replica off a device; the first that applies is told."""

    NOT_READY = enum.auto()  # its node does not report
    FAILED = enum.auto()  # the GPU cannot be used
    HAS_GPUS = enum.auto()  # a host without GPUs, in a fleet that has some
    NEEDS_GPU = enum.auto()  # a host without GPUs, and the deployment was sized for GPUs
    AVOIDED = enum.auto()  # its node refused the replica there
    NODE_FULL = enum.auto()  # its node cannot be told of more replicas
    NOT_SHARED = enum.auto()  # taken, and one side or the other does not share
    MEMORY = enum.auto()


@dataclass(frozen=True, slots=True)
class Occupant:
    """What holds memory of a device: a replica, or an engine of ours without one."""

    name: str  # for example `chat-0`; the uid if nothing else is known
    held_bytes: int  # the larger of what is reserved and what is measured
    reserved_bytes: int
    is_exclusive: bool = False  # its deployment shares with nobody
    is_reported: bool = True  # its node reports an engine, so that its load shows in the utilization

    @classmethod
    def expected(cls, name: str, wanted: Wanted) -> Occupant:
        """Returns a replica of a deployment that is given its place now."""
        need_bytes = wanted.need.total_bytes
        return cls(name, need_bytes, need_bytes, is_exclusive=not wanted.allows_sharing, is_reported=False)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a replica can be put: a GPU, or the memory of a host without GPUs."""

    node: NodeId
    gpu: GpuUuid | None
    index: int
    total_bytes: int
    foreign_bytes: int
    utilization_fraction: float
    node_room: int  # how many more replicas its node can be told of
    obstacle: Obstacle | None  # one that holds whatever the replica
    occupants: tuple[Occupant, ...]

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
        return max(0, self.total_bytes - self.foreign_bytes - self.held_bytes)

    def with_occupant(self, occupant: Occupant) -> Device:
        """Returns the device with one more on it."""
        return replace(self, occupants=(*self.occupants, occupant))

    def with_node_room(self, node_room: int) -> Device:
        """Returns the device when its node, be it there or elsewhere, has got replicas."""
        return replace(self, node_room=node_room)

    def barred(self, obstacle: Obstacle) -> Device:
        """Returns the device as one that is not to be taken."""
        return self if self.obstacle is not None else replace(self, obstacle=obstacle)

    def obstacle_to(self, need_bytes: int, *, is_exclusive: bool) -> Obstacle | None:
        """Returns what keeps a replica of this need off; None if it fits."""
        if self.obstacle is not None:
            return self.obstacle
        if self.node_room <= 0:
            return Obstacle.NODE_FULL
        if self.occupants and (is_exclusive or any(each.is_exclusive for each in self.occupants)):
            return Obstacle.NOT_SHARED
        return Obstacle.MEMORY if self.available_bytes < need_bytes else None

    def room(self, need_bytes: int, *, is_exclusive: bool) -> int:
        """Returns how many replicas of this need fit."""
        if self.obstacle_to(need_bytes, is_exclusive=is_exclusive) is not None:
            return 0
        return 1 if is_exclusive else min(self.node_room, self.available_bytes // max(1, need_bytes))


def devices_of(
    nodes: Iterable[Node], placements: Iterable[Placement], *, exclusive: Collection[str] = ()
) -> list[Device]:
    """Returns every GPU of the fleet and every host without GPUs, by node and index, with what is on it.

    exclusive: uids of the deployments that share with nobody.
    """
    by_node: dict[NodeId, list[Placement]] = {}
    for each in placements:
        by_node.setdefault(each.node, []).append(each)
    ordered = sorted(nodes, key=lambda node: node.id)
    has_gpus = any(usable_gpus(ordered))
    return [
        device
        for node in ordered
        for device in _devices_of_node(node, by_node.get(node.id, []), exclusive, has_gpus=has_gpus)
    ]


def usable_gpus(nodes: Iterable[Node]) -> Iterator[Gpu]:
    """Yields the GPUs of a fleet that can be used now. While there are any, hosts without GPUs take no replica.

    Those of a node that does not report are not among them: it may never come back.
    """
    return (gpu for node in nodes if node.is_ready for gpu in node.gpus if gpu.is_healthy)


def _occupant(placement: Placement, exclusive: Collection[str], engine: Engine | None) -> Occupant:
    reserved = max(placement.reserved_bytes, 0 if engine is None else engine.reserved_bytes)
    return Occupant(
        name=f"{placement.deployment}-{placement.index}",
        held_bytes=max(reserved, 0 if engine is None else engine.measured_bytes),
        reserved_bytes=reserved,
        is_exclusive=placement.deployment_uid in exclusive,
        is_reported=engine is not None,
    )


def _devices_of_node(
    node: Node, placements: Sequence[Placement], exclusive: Collection[str], *, has_gpus: bool
) -> Iterator[Device]:
    running = {engine.replica_uid: engine for engine in node.engines if not engine.is_gone}
    node_room = MAX_NODE_REPLICAS - len(placements)
    for gpu in sorted(node.gpus, key=lambda gpu: gpu.index):
        here = {uid: engine for uid, engine in running.items() if gpu.uuid in engine.gpus}
        failed = None if gpu.is_healthy else Obstacle.FAILED
        yield Device(
            node=node.id,
            gpu=gpu.uuid,
            index=gpu.index,
            total_bytes=gpu.total_bytes,
            foreign_bytes=_foreign_bytes(gpu.used_bytes, here.values()),
            utilization_fraction=gpu.utilization_fraction,
            node_room=node_room,
            obstacle=failed if node.is_ready else Obstacle.NOT_READY,
            occupants=_occupants([each for each in placements if gpu.uuid in each.gpus], here, exclusive),
        )
    if not node.gpus:
        here = {uid: engine for uid, engine in running.items() if not engine.gpus}
        yield Device(
            node=node.id,
            gpu=None,
            index=0,
            total_bytes=node.host_total_bytes,
            foreign_bytes=_foreign_bytes(node.host_total_bytes - node.host_available_bytes, here.values()),
            utilization_fraction=0.0,
            node_room=node_room,
            obstacle=(Obstacle.HAS_GPUS if has_gpus else None) if node.is_ready else Obstacle.NOT_READY,
            occupants=_occupants([each for each in placements if not each.gpus], here, exclusive),
        )


def _foreign_bytes(used_bytes: int, engines: Iterable[Engine]) -> int:
    return max(0, used_bytes - sum(engine.measured_bytes for engine in engines))


def _occupants(
    placements: Sequence[Placement], engines: Mapping[ReplicaUid, Engine], exclusive: Collection[str]
) -> tuple[Occupant, ...]:
    replicas = [_occupant(each, exclusive, engines.get(each.replica_uid)) for each in placements]
    placed = {each.replica_uid for each in placements}
    # Engines without a placement are ours too: orphans, or what a store that was lost had placed.
    strays = [_stray(engine) for uid, engine in engines.items() if uid not in placed]
    return tuple(sorted((*replicas, *strays), key=lambda each: (each.name, each.held_bytes)))


def _stray(engine: Engine) -> Occupant:
    held = max(engine.reserved_bytes, engine.measured_bytes)
    return Occupant(name=engine.replica_uid, held_bytes=held, reserved_bytes=engine.reserved_bytes)
