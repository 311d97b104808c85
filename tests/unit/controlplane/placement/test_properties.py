"""What holds of placement on any fleet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controlplane.model import (
    Gpu,
    GpuUuid,
    Node,
    NodeId,
)
from controlplane.placement.fit import Place
from controlplane.placement.strategies import Candidate
from tests.support.fleets import GIB, node, place, wanted, where
from tests.support.scenes import GIBS, SHY, SOLO, Scene, scenes


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
    taken = Counter((each.node, gpu) for each in places.proposals for gpu in each.gpus or (None,))
    for spot, count in taken.items():
        assert count * scene.wanted.need.total_bytes <= before[spot].available_bytes
        assert before[spot].obstacle is None
    for spot, device in scene.devices(scene.placed(places)).items():
        if taken[spot] and device.gpu and any(each.is_exclusive for each in device.occupants):
            assert len(device.occupants) == 1


@settings(deadline=None)
@given(scenes())
def test_a_replica_has_all_its_gpus_on_one_node_or_none_at_all(scene: Scene) -> None:
    on_node = {host.id: [gpu.uuid for gpu in host.gpus] for host in scene.nodes}
    for each in scene.place().proposals:
        assert len(set(each.gpus)) == len(each.gpus) == scene.wanted.gpus_per_replica
        assert list(each.gpus) == [gpu for gpu in on_node[each.node] if gpu in each.gpus]


@settings(deadline=None)
@given(scenes())
def test_what_a_deployment_says_of_where_it_may_be_holds(scene: Scene) -> None:
    places, by_id = scene.place(), {each.id: each for each in scene.nodes}
    standing = [*scene.placements, *scene.placed(places)]
    for each in places.proposals:
        host = by_id[each.node]
        assert scene.wanted.node_labels <= set(host.labels.items())
        assert scene.wanted.tolerations or not host.taints
        if scene.wanted.allowed_gpus:
            assert each.node == "b" or (each.node == "a" and set(each.gpus) <= {"a-0", "a-1"})
        beside = [other for other in standing if other.node == each.node and other.replica_uid != f"new-{each.index}"]
        for apart in scene.wanted.anti_affinity:
            uids = {SOLO.uid} if apart.labels else {scene.wanted.uid}
            forbidden = [other for other in beside if other.deployment_uid in uids]
            assert not (
                set(each.gpus) & {gpu for other in forbidden for gpu in other.gpus} if apart.on_gpu else forbidden
            )
        if ("app", "chat") in scene.wanted.labels:
            assert not set(each.gpus) & {
                gpu for other in beside if other.deployment_uid == SHY.uid for gpu in other.gpus
            }


@settings(deadline=None)
@given(scenes(), st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_the_facts(scene: Scene, random: Random) -> None:
    shuffled = replace(
        scene,
        nodes=tuple(
            replace(each, gpus=tuple(random.sample(each.gpus, len(each.gpus))))
            for each in random.sample(scene.nodes, len(scene.nodes))
        ),
        placements=tuple(random.sample(scene.placements, len(scene.placements))),
        others=tuple(random.sample(scene.others, len(scene.others))),
    )
    assert shuffled.place() == scene.place() == scene.place()


def most_gangs(rooms: Sequence[int], size: int) -> int:
    """Returns how many replicas of `size` different GPUs fit, by trying all ways to take the first of them."""
    if size <= 1:
        return sum(rooms)
    best = 0
    for chosen in combinations([at for at, room in enumerate(rooms) if room], size):
        left = [room - (at in chosen) for at, room in enumerate(rooms)]
        best = max(best, 1 + most_gangs(left, size))
    return best


@settings(deadline=None)
@given(scenes(is_free=True))
def test_without_a_gpu_count_as_many_are_placed_as_fit(scene: Scene) -> None:
    scene = replace(scene, wanted=replace(scene.wanted, gpu_count=None), others=(SOLO,))
    size, rooms = scene.wanted.gpus_per_replica or 0, scene.rooms()
    if size > 1:
        # More than three on one GPU would make trying all ways too slow, and shows nothing else.
        assume(max(rooms.values(), default=0) <= 3)
    on = [[room for spot, room in rooms.items() if spot[0] == host.id] for host in scene.nodes]
    assert len(scene.place().proposals) == min(sum(most_gangs(each, size) for each in on), len(scene.missing))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_counts_differ_by_at_most_one_where_memory_is_ample(
    replica_count: int, gpu_count: int, gpus: Sequence[int]
) -> None:
    gpu_count = min(gpu_count, replica_count, sum(gpus))
    fleet = [node(name, count) for name, count in zip("abc", gpus, strict=False)]
    deployment = wanted(replica_count=replica_count, need_gib=1, gpu_count=gpu_count)
    places = place(deployment, range(replica_count), placements=[], nodes=fleet)
    counts = Counter(where(places.proposals))
    assert len(counts) == gpu_count
    assert sum(counts.values()) == replica_count
    assert max(counts.values()) - min(counts.values()) <= 1


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(2, 3), st.lists(st.integers(2, 6), min_size=1, max_size=3))
def test_gangs_are_as_even_on_sets_of_gpus_that_have_none_in_common(
    replica_count: int, slot_count: int, size: int, gpus: Sequence[int]
) -> None:
    slot_count = min(slot_count, replica_count, sum(count // size for count in gpus))
    assume(slot_count)  # few have no room for a gang
    fleet = [node(name, count) for name, count in zip("abc", gpus, strict=False)]
    deployment = wanted(replica_count=replica_count, need_gib=1, gpu_count=slot_count * size, gpus_per_replica=size)
    places = place(deployment, range(replica_count), placements=[], nodes=fleet)
    counts = Counter(each.gpus for each in places.proposals)
    assert len(counts) == slot_count
    assert len({gpu for gpus in counts for gpu in gpus}) == slot_count * size
    assert max(counts.values()) - min(counts.values()) <= 1


@settings(deadline=None)
@given(scenes(is_free=True, sizes=(0, 1, 1), is_counted=True))
def test_with_a_gpu_count_the_counts_are_as_even_as_any_set_allows(scene: Scene) -> None:
    scene = replace(scene, others=(SOLO,))
    rooms = scene.rooms()
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


@settings(max_examples=150, deadline=None)
@given(scenes(), GIBS, st.integers(1, 4), st.sampled_from([None, 0]), st.floats(0, 1))
def test_another_free_node_never_makes_fewer_fit(
    scene: Scene, gib: int, gpu_count: int, island: int | None, busy: float
) -> None:
    gpus = tuple(Gpu(GpuUuid(f"z-{at}"), at, gib * GIB, 0, busy, True, island) for at in range(gpu_count))
    more = replace(scene, nodes=(*scene.nodes, Node(NodeId("z"), True, gpus, (), gib * GIB, gib * GIB)))
    assert len(more.place().proposals) >= len(scene.place().proposals)


@settings(max_examples=150, deadline=None)
@given(scenes(), GIBS, st.floats(0, 1))
def test_another_free_gpu_on_a_node_never_makes_fewer_fit(scene: Scene, gib: int, busy: float) -> None:
    assume(scene.nodes)
    first, *rest = scene.nodes
    grown = replace(first, gpus=(*first.gpus, Gpu(GpuUuid("a-9"), 9, gib * GIB, 0, busy, True, 0)))
    more = replace(scene, nodes=(grown, *rest))
    assert len(more.place().proposals) >= len(scene.place().proposals)


@settings(deadline=None)
@given(scenes(), st.sampled_from(["raises", "nan", "text", "nothing", "infinity"]))
def test_an_unlucky_strategy_leaves_replicas_without_a_place_and_with_a_reason(scene: Scene, how: str) -> None:
    def unlucky(candidate: Candidate) -> Sequence[tuple[str, float]]:
        answers = {"nan": math.nan, "infinity": -math.inf, "text": "much", "nothing": None}
        if how == "raises":
            raise ZeroDivisionError(candidate.index)
        return [("taste", answers[how])]  # type: ignore[list-item]

    deployment = replace(scene.wanted, strategy="unlucky")
    places = place(
        deployment,
        scene.missing,
        placements=scene.placements,
        nodes=scene.nodes,
        others=scene.others,
        avoid=scene.avoid,
        strategies={"unlucky": unlucky},
    )
    assert places.proposals == ()
    assert [each.index for each in places.unplaced] == scene.missing
    if scene.place().proposals:
        assert all('the strategy "unlucky" failed' in each.reason for each in places.unplaced)
