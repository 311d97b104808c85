"""What holds of placement on any fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controlplane.model import Engine, Gpu, GpuUuid, Node, NodeId, Placement, ReplicaUid, Wanted
from controlplane.placement.fit import Device, Obstacle, Place, devices_of, usable_gpus
from controlplane.placement.place import Places
from tests.support.fleets import GIB, node, place, placement, wanted, where

GIBS = st.integers(0, 24)


@dataclass(frozen=True)
class Scene:
    """A fleet with what stands on it, and a deployment of which some replicas are to be placed."""

    nodes: tuple[Node, ...]
    placements: tuple[Placement, ...]
    wanted: Wanted
    avoid: frozenset[Place]

    @property
    def missing(self) -> list[int]:
        standing = {each.index for each in self.placements if each.deployment_uid == self.wanted.uid}
        return [index for index in range(self.wanted.replica_count) if index not in standing]

    @property
    def exclusive(self) -> frozenset[str]:
        return frozenset({"uid-solo"} | (set() if self.wanted.allows_sharing else {self.wanted.uid}))

    def place(self) -> Places:
        return place(
            self.wanted,
            self.missing,
            placements=self.placements,
            nodes=self.nodes,
            exclusive=self.exclusive,
            avoid=self.avoid,
        )

    def devices(self, placed: Sequence[Placement] = ()) -> dict[Place, Device]:
        standing = (*self.placements, *placed)
        found = devices_of(self.nodes, standing, exclusive=self.exclusive)
        return {each.place: each.barred(Obstacle.AVOIDED) if each.place in self.avoid else each for each in found}

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
            )
            for index in range(draw(st.integers(0, 3)))
        )
        host = draw(GIBS) * GIB
        is_ready = draw(st.sampled_from([True, True, True, False]))
        found.append(Node(NodeId(name), is_ready, gpus, (), host, host - draw(st.integers(0, host))))
    return tuple(found)


def spots(fleet: Sequence[Node]) -> Iterator[Place]:
    for each in fleet:
        yield from ((each.id, gpu.uuid) for gpu in each.gpus)
        if not each.gpus:
            yield each.id, None


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    fleet = draw(nodes())
    replica_count = draw(st.integers(1, 6))
    deployment = wanted(
        replica_count=replica_count,
        need_gib=draw(st.integers(1, 8)),
        gpu_count=draw(st.none() | st.integers(1, replica_count)),
        allows_sharing=draw(st.sampled_from([True, True, False])),
    )
    everywhere = list(spots(fleet))
    placements = []
    if everywhere:
        for index in range(draw(st.integers(0, 4))):
            spot = draw(st.sampled_from(everywhere))
            name = draw(st.sampled_from(["chat", "other", "solo"]))
            at = spot[0] if spot[1] is None else str(spot[1])
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


@settings(deadline=None)
@given(scenes())
def test_every_replica_has_a_place_or_a_reason(scene: Scene) -> None:
    places = scene.place()
    told = [each.index for each in places.proposals] + [each.index for each in places.unplaced]
    assert told == scene.missing
    assert all(each.reason for each in places.unplaced)


@settings(deadline=None)
@given(scenes())
def test_no_place_is_given_more_than_it_has(scene: Scene) -> None:
    before, places = scene.devices(), scene.place()
    taken = Counter((each.node, each.gpus[0] if each.gpus else None) for each in places.proposals)
    for spot, count in taken.items():
        assert count * scene.wanted.need.total_bytes <= before[spot].available_bytes
        assert before[spot].obstacle is None
    for spot, device in scene.devices(scene.placed(places)).items():
        if taken[spot] and any(each.is_exclusive for each in device.occupants):
            assert len(device.occupants) == 1


@settings(deadline=None)
@given(scenes(), st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_the_facts(scene: Scene, random: Random) -> None:
    shuffled = replace(
        scene,
        nodes=tuple(random.sample(scene.nodes, len(scene.nodes))),
        placements=tuple(random.sample(scene.placements, len(scene.placements))),
    )
    assert shuffled.place() == scene.place() == scene.place()


@settings(deadline=None)
@given(scenes())
def test_without_a_gpu_count_as_many_are_placed_as_fit(scene: Scene) -> None:
    scene = replace(scene, wanted=replace(scene.wanted, gpu_count=None))
    need_bytes, is_exclusive = scene.wanted.need.total_bytes, not scene.wanted.allows_sharing
    room = sum(device.room(need_bytes, is_exclusive=is_exclusive) for device in scene.devices().values())
    assert len(scene.place().proposals) == min(room, len(scene.missing))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_counts_differ_by_at_most_one_where_memory_is_ample(
    replica_count: int, gpu_count: int, gpus: Sequence[int]
) -> None:
    assume(gpu_count <= min(replica_count, sum(gpus)))
    fleet = [node(name, count) for name, count in zip("abc", gpus, strict=False)]
    deployment = wanted(replica_count=replica_count, need_gib=1, gpu_count=gpu_count)
    places = place(deployment, range(replica_count), placements=[], nodes=fleet)
    counts = Counter(where(places.proposals))
    assert len(counts) == gpu_count
    assert sum(counts.values()) == replica_count
    assert max(counts.values()) - min(counts.values()) <= 1


@settings(max_examples=200, deadline=None)
@given(scenes())
def test_with_a_gpu_count_the_counts_are_as_even_as_any_set_allows(scene: Scene) -> None:
    assume(scene.wanted.gpu_count is not None)
    need_bytes, is_exclusive = scene.wanted.need.total_bytes, not scene.wanted.allows_sharing
    rooms = {spot: device.room(need_bytes, is_exclusive=is_exclusive) for spot, device in scene.devices().items()}
    own = [each for each in scene.placements if each.deployment_uid == scene.wanted.uid]
    counts = Counter((each.node, each.gpus[0] if each.gpus else None) for each in own)
    size = max(len(counts), min(scene.wanted.gpu_count or 0, len(counts) + len(scene.missing)))
    others = [spot for spot, room in rooms.items() if room > 0 and spot not in counts]
    best = None
    for chosen in combinations(others, size - len(counts)):
        spread = even_spread({**counts, **dict.fromkeys(chosen, 0)}, rooms, len(scene.missing))
        if spread is not None and (best is None or spread < best):
            best = spread
    places = scene.place()
    if not scene.missing:
        return
    assert (best is None) == bool(places.unplaced)
    if best is not None:
        final = counts + Counter((each.node, each.gpus[0] if each.gpus else None) for each in places.proposals)
        assert len(final) == size
        assert max(final.values()) - min(final.values()) == best


def even_spread(counts: dict[Place, int], rooms: dict[Place, int], new_count: int) -> int | None:
    """Returns how far apart the counts are at least if so many more go to these places; None if they do not fit."""
    final, left = dict(counts), {spot: rooms.get(spot, 0) for spot in counts}
    for _ in range(new_count):
        open_spots = [spot for spot in final if left[spot] > 0]
        if not open_spots:
            return None
        least = min(open_spots, key=lambda spot: final[spot])
        final[least] += 1
        left[least] -= 1
    return None if min(final.values()) == 0 else max(final.values()) - min(final.values())


@settings(max_examples=200, deadline=None)
@given(scenes(), GIBS)
def test_another_free_gpu_never_makes_fewer_fit(scene: Scene, gib: int) -> None:
    # While there are hosts only, it does: a single GPU, however small, keeps replicas off the hosts.
    assume(any(usable_gpus(scene.nodes)))
    more = replace(
        scene, nodes=(*scene.nodes, Node(NodeId("z"), True, (Gpu(GpuUuid("z-0"), 0, gib * GIB, 0, 0.0),), (), 0, 0))
    )
    assert len(more.place().proposals) >= len(scene.place().proposals)
