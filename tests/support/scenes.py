"""Random fleets with something on them, and a deployment that is to be placed there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from controlplane.model import (
    AntiAffinity,
    Engine,
    Gpu,
    GpuUuid,
    Node,
    NodeGpus,
    NodeId,
    Placement,
    ReplicaUid,
    Taint,
    Toleration,
    Wanted,
)
from controlplane.placement.fit import Device, Obstacle, Place, devices_of
from controlplane.placement.place import Places
from controlplane.placement.strategies import STRATEGIES
from tests.support.fleets import GIB, place, placement, wanted

GIBS = st.integers(0, 24)
SOLO = wanted("solo", allows_sharing=False, labels={"tier": "solo"})
SHY = wanted("other", anti_affinity=[AntiAffinity(frozenset({("app", "chat")}), on_gpu=True)])


@dataclass(frozen=True)
class Scene:
    """A fleet with what stands on it, and a deployment of which some replicas are to be placed."""

    nodes: tuple[Node, ...]
    placements: tuple[Placement, ...]
    wanted: Wanted
    avoid: frozenset[Place]
    others: tuple[Wanted, ...] = (SOLO, SHY)

    @property
    def missing(self) -> list[int]:
        standing = {each.index for each in self.placements if each.deployment_uid == self.wanted.uid}
        return [index for index in range(self.wanted.replica_count) if index not in standing]

    def place(self) -> Places:
        return place(
            self.wanted,
            self.missing,
            placements=self.placements,
            nodes=self.nodes,
            others=self.others,
            avoid=self.avoid,
        )

    def devices(self, placed: Sequence[Placement] = ()) -> dict[Place, Device]:
        owners = {each.uid: each for each in (*self.others, self.wanted)}
        found = devices_of(self.nodes, (*self.placements, *placed), owners=owners)
        return {
            each.place: replace(each, obstacle=each.obstacle or Obstacle.AVOIDED) if each.place in self.avoid else each
            for each in found
        }

    def placed(self, places: Places) -> list[Placement]:
        """Returns the proposals as if they had been taken."""
        return [
            Placement(
                each.deployment,
                self.wanted.uid,
                each.index,
                ReplicaUid(f"new-{each.index}"),
                1,
                each.node,
                each.gpus,
                each.reserved_bytes,
            )
            for each in places.proposals
        ]

    def rooms(self) -> dict[Place, int]:
        """Returns how many replicas of a deployment without constraints each GPU takes, or each host."""
        need_bytes = self.wanted.need.total_bytes
        rooms = {}
        for spot, device in self.devices().items():
            is_exclusive = not self.wanted.allows_sharing or any(each.is_exclusive for each in device.occupants)
            most = device.available_bytes // need_bytes
            if is_exclusive and device.gpu:
                most = min(most, 0 if device.occupants else 1)
            is_kind = (device.gpu is None) == (self.wanted.gpus_per_replica == 0)
            rooms[spot] = most if is_kind and device.obstacle is None else 0
        return rooms


@st.composite
def nodes(draw: st.DrawFn) -> tuple[Node, ...]:
    found = []
    for name in "abc"[: draw(st.integers(0, 3))]:
        gpus = tuple(
            Gpu(
                uuid=GpuUuid(f"{name}-{index}"),
                index=index,
                total_bytes=draw(GIBS) * GIB,
                used_bytes=draw(GIBS) * GIB // 4,
                utilization_fraction=draw(st.floats(0, 1)),
                is_healthy=draw(st.sampled_from([True, True, True, False])),
                nvlink_island=draw(st.sampled_from([None, 0, 1])),
            )
            for index in range(draw(st.integers(0, 4)))
        )
        host = draw(GIBS) * GIB
        found.append(
            Node(
                NodeId(name),
                draw(st.sampled_from([True, True, True, False])),
                gpus,
                (),
                host,
                host - draw(st.integers(0, host)),
                labels=draw(st.sampled_from([{}, {"zone": "x"}])),
                taints=draw(st.sampled_from([(), (), (Taint("batch"),)])),
            )
        )
    return tuple(found)


def spots(fleet: Sequence[Node]) -> Iterator[Place]:
    for each in fleet:
        yield from ((each.id, gpu.uuid) for gpu in each.gpus)
        yield each.id, None


def deployments(draw: st.DrawFn, *, is_free: bool, sizes: Sequence[int], is_counted: bool) -> Wanted:
    replica_count = draw(st.integers(1, 6))
    size = draw(st.sampled_from(sizes))
    counts = st.integers(1, replica_count)
    slots = draw(counts if is_counted else st.none() | counts)
    plain = wanted(
        replica_count=replica_count,
        need_gib=draw(st.integers(1, 8)),
        gpu_count=None if slots is None else slots * max(1, size),
        allows_sharing=draw(st.sampled_from([True, True, False])),
        gpus_per_replica=size,
        labels={"app": "chat"},
        strategy=draw(st.sampled_from(sorted(STRATEGIES))),
    )
    if is_free:
        return replace(plain, labels=frozenset())
    self_apart, others = AntiAffinity(frozenset()), AntiAffinity(frozenset({("tier", "solo")}))
    allowed = (NodeGpus(NodeId("a"), indexes=frozenset({0, 1})), NodeGpus(NodeId("z")), NodeGpus(NodeId("b")))
    return replace(
        plain,
        node_labels=draw(st.sampled_from([frozenset(), frozenset({("zone", "x")})])),
        tolerations=draw(st.sampled_from([(), (Toleration("*"),)])),
        allowed_gpus=draw(st.sampled_from([(), allowed])),
        anti_affinity=draw(st.sampled_from([(), (), (self_apart,), (replace(self_apart, on_gpu=True),), (others,)])),
    )


@st.composite
def scenes(
    draw: st.DrawFn, *, is_free: bool = False, sizes: Sequence[int] = (0, 1, 1, 2, 2, 3), is_counted: bool = False
) -> Scene:
    """is_free: the deployment has no constraints on where it may be. sizes: GPUs of a replica. is_counted: it has a
    `gpu_count`.
    """
    fleet = draw(nodes())
    if is_free:
        fleet = tuple(replace(each, taints=()) for each in fleet)
    deployment = deployments(draw, is_free=is_free, sizes=sizes, is_counted=is_counted)
    everywhere = list(spots(fleet))
    placements = []
    if everywhere:
        for index in range(draw(st.integers(0, 4))):
            name = draw(st.sampled_from(["chat", "other", "solo"]))
            host = draw(st.sampled_from(fleet))
            count = deployment.gpus_per_replica or 0 if name == "chat" else draw(st.integers(0, 2))
            gpus = [gpu.uuid for gpu in host.gpus]
            if count > len(gpus):
                continue
            at = "+".join(sorted(draw(st.permutations(gpus))[:count])) if count else str(host.id)
            placements.append(placement(f"{name}-{index}", at, gib=draw(st.integers(1, 4))))
    reported = []
    for host in fleet:
        engines = tuple(
            Engine(on.replica_uid, on.gpus, on.reserved_bytes, draw(GIBS) * GIB // 8, draw(st.booleans()))
            for on in placements
            if on.node == host.id and draw(st.booleans())
        )
        reported.append(replace(host, engines=engines))
    avoid = draw(st.frozensets(st.sampled_from(everywhere), max_size=1)) if everywhere else frozenset()
    return Scene(tuple(reported), tuple(placements), deployment, avoid)
