"""Says by trying everything what placement may do in a small fleet, and what is wrong with what it did.

Written from chapter 5 of the design and from the comments of the contract. Imports nothing of ours but the facts, and
tries every way there is: fit for 3 nodes of 3 GPUs and 4 replicas, not for more.

Where those say nothing, it is read so: a host counts as one GPU for keeping apart, as it does for `gpu_count`, but is
shared in any case; and with a `gpu_count` the gangs of a deployment have the same GPUs or none in common.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from controlplane.model import AntiAffinity, GpuUuid, Node, NodeId, Placement, Wanted

# Where one replica is: its node and its GPUs; without GPUs it is in the memory of the host.
Slot = tuple[NodeId, tuple[GpuUuid, ...]]
# What has memory: a GPU of a node, or with None its host.
Device = tuple[NodeId, GpuUuid | None]


class Proposed(Protocol):
    """A place that was proposed for a replica."""

    @property
    def deployment(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def node(self) -> NodeId: ...
    @property
    def gpus(self) -> tuple[GpuUuid, ...]: ...
    @property
    def reserved_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Occupant:
    """A replica that is there already, or an engine whose placement nobody knows."""

    slot: Slot
    owner: Wanted | None
    reserved_bytes: int
    measured_bytes: int


@dataclass(frozen=True)
class Scene:
    """A fleet, what stands on it, and the deployment of which the missing replicas are to be placed."""

    nodes: Sequence[Node]
    placements: Sequence[Placement]  # of everybody
    owners: Mapping[str, Wanted]  # of them, by uid
    wanted: Wanted

    @property
    def own(self) -> list[Placement]:
        """Returns the replicas of the deployment that have a place already."""
        return [each for each in self.placements if each.deployment_uid == self.wanted.uid and not each.is_stopping]

    @property
    def missing(self) -> set[int]:
        """Returns the indexes of the replicas that have none."""
        return set(range(self.wanted.replica_count)) - {each.index for each in self.own}


# ------------------------------------------------------------------------------------------------------- search


def is_feasible(scene: Scene) -> bool:
    """Returns whether all missing replicas can be placed."""
    return any(True for _ in ways(scene, len(scene.missing)))


def most_placeable(scene: Scene) -> int:
    """Returns how many of the missing replicas can be placed together."""
    counts = range(len(scene.missing), -1, -1)
    return next(count for count in counts if any(True for _ in ways(scene, count)))


def ways(scene: Scene, count: int) -> Iterator[tuple[Slot, ...]]:
    """Yields every way to place so many replicas by the rules; equal replicas that change places make no other way."""
    stand = occupants(scene)
    slots = [slot for slot in _all_slots(scene) if not faults(scene, stand, [slot])]

    def grow(placed: tuple[Slot, ...], first: int) -> Iterator[tuple[Slot, ...]]:
        if len(placed) == count:
            if count < len(scene.missing) or not _unused(scene, placed):
                yield placed
            return
        for position in range(first, len(slots)):
            more = (*placed, slots[position])
            # A rule that is broken stays broken, whatever else is placed.
            if not faults(scene, stand, more):
                yield from grow(more, position)

    return grow((), 0)


def seed_counts(scene: Scene) -> tuple[list[int], list[int]]:
    """Returns how many replicas each GPU and each node has, most first, where equal and idle ones are to be used alike.

    The fewest replicas on the fullest GPU come first, then the fewest on the fullest node.
    """
    return min(counts_of(scene, way) for way in ways(scene, len(scene.missing)))


def counts_of(scene: Scene, slots: Sequence[Slot]) -> tuple[list[int], list[int]]:
    """Returns how many replicas each GPU (or host) and each node has that has one, most first."""
    every = [*slots, *(slot_of(each) for each in scene.own)]
    devices = Counter(device for slot in every for device in devices_of(slot))
    return sorted(devices.values(), reverse=True), sorted(Counter(node for node, _ in every).values(), reverse=True)


def _all_slots(scene: Scene) -> list[Slot]:
    size = scene.wanted.gpus_per_replica
    assert size is not None, "what a record from before there was a choice means is not a matter of the design"
    return [(node.id, gpus) for node in scene.nodes for gpus in combinations([gpu.uuid for gpu in node.gpus], size)]


# -------------------------------------------------------------------------------------------------------- judge


def judge(scene: Scene, proposals: Sequence[Proposed]) -> list[str]:
    """Returns every rule that these proposals break, each with what breaks it."""
    slots = [slot_of(each) for each in proposals]
    found = [*_misnamed(scene, proposals), *faults(scene, occupants(scene), slots)]
    if not found and proposals and len(proposals) == len(scene.missing):
        found = _unused(scene, slots) or _uneven(scene, slots)
    return found


def faults(scene: Scene, stand: Sequence[Occupant], slots: Sequence[Slot]) -> list[str]:
    """Returns the rules that new replicas in these slots break, beside those that stand."""
    nodes = {node.id: node for node in scene.nodes}
    return [
        *(fault for slot in set(slots) for fault in _barred(scene.wanted, nodes, slot)),
        *_overfilled(scene.wanted, nodes, stand, slots),
        *_shared(scene.wanted, stand, slots),
        *_together(scene.wanted, stand, slots),
        *_too_many_gpus(scene, slots),
        *_overlapping(scene, slots),
    ]


def occupants(scene: Scene) -> list[Occupant]:
    """Returns what stands: every placement, stopping ones too, and every engine that is not gone."""
    engines = {(node.id, each.replica_uid): each for node in scene.nodes for each in node.engines if not each.is_gone}
    found: list[Occupant] = []
    for placement in scene.placements:
        engine = engines.pop((placement.node, placement.replica_uid), None)
        measured = engine.measured_bytes if engine else 0
        owner = scene.owners.get(placement.deployment_uid)
        found.append(Occupant(slot_of(placement), owner, placement.reserved_bytes, measured))
    for (node, _), engine in engines.items():
        found.append(Occupant((node, engine.gpus), None, engine.reserved_bytes, engine.measured_bytes))
    return found


def available_bytes(node: Node, stand: Sequence[Occupant], device: Device) -> int:
    """Returns total − foreign − Σ max(reserved, measured), where foreign = used − measured."""
    _, uuid = device
    here = [each for each in stand if device in devices_of(each.slot)]
    if uuid is None:
        total, used = node.host_total_bytes, node.host_total_bytes - node.host_available_bytes
    else:
        total, used = next((gpu.total_bytes, gpu.used_bytes) for gpu in node.gpus if gpu.uuid == uuid)
    foreign = max(0, used - sum(each.measured_bytes for each in here))
    return total - foreign - sum(max(each.reserved_bytes, each.measured_bytes) for each in here)


def slot_of(each: Proposed | Placement) -> Slot:
    return each.node, tuple(each.gpus)


def devices_of(slot: Slot) -> list[Device]:
    node, gpus = slot
    return [(node, uuid) for uuid in gpus] or [(node, None)]


# -------------------------------------------------------------------------------------------------------- rules


def _misnamed(scene: Scene, proposals: Sequence[Proposed]) -> Iterator[str]:
    for index, count in Counter(each.index for each in proposals).items():
        if index not in scene.missing:
            yield f"index: replica {index} is not missing"
        if count > 1:
            yield f"index: replica {index} is placed {count} times"
    for each in proposals:
        if each.deployment != scene.wanted.deployment:
            yield f"deployment: {each.deployment} is not the one that was to be placed"
        if each.reserved_bytes != scene.wanted.need.total_bytes:
            yield f"reserved: {each.reserved_bytes} is not what replica {each.index} needs"


def _barred(wanted: Wanted, nodes: Mapping[NodeId, Node], slot: Slot) -> Iterator[str]:
    """Yields what bars a slot by itself, whoever is there."""
    name, uuids = slot
    node = nodes.get(name)
    if node is None:
        yield f"node: there is no {name}"
        return
    if not node.is_ready:
        yield f"ready: {name} is not"
    if not wanted.node_labels <= set(node.labels.items()):
        yield f"labels: {name} lacks one"
    for taint in node.taints:
        if not any(each.key in {"*", taint.key} and each.value in {None, taint.value} for each in wanted.tolerations):
            yield f"taint: {taint.key} of {name} is not tolerated"
    if len(uuids) != wanted.gpus_per_replica or len(set(uuids)) != len(uuids):
        yield f"gang: {uuids} are not {wanted.gpus_per_replica} GPUs"
    if not uuids and wanted.allowed_gpus and not any(each.node in {None, name} for each in wanted.allowed_gpus):
        yield f"allowed: no entry means {name}"
    gpus = {gpu.uuid: gpu for gpu in node.gpus}
    for uuid in uuids:
        if uuid not in gpus:
            yield f"gang: {uuid} is not on {name}"
        elif not gpus[uuid].is_healthy:
            yield f"healthy: {uuid} is not"
        elif not _is_allowed(wanted, name, gpus[uuid].index, uuid):
            yield f"allowed: {uuid} is not"


def _is_allowed(wanted: Wanted, node: NodeId, index: int, uuid: GpuUuid) -> bool:
    return not wanted.allowed_gpus or any(
        each.node in {None, node} and (index in each.indexes or uuid in each.uuids or not (each.indexes or each.uuids))
        for each in wanted.allowed_gpus
    )


def _overfilled(
    wanted: Wanted, nodes: Mapping[NodeId, Node], stand: Sequence[Occupant], slots: Sequence[Slot]
) -> Iterator[str]:
    for device, count in Counter(device for slot in slots for device in devices_of(slot)).items():
        node = nodes.get(device[0])
        if node is None or device[1] not in {None, *(gpu.uuid for gpu in node.gpus)}:
            continue  # `_barred` has said so
        available, needed = available_bytes(node, stand, device), count * wanted.need.total_bytes
        if needed > available:
            yield f"memory: {count} on {device} need {needed} bytes of {available}"


def _shared(wanted: Wanted, stand: Sequence[Occupant], slots: Sequence[Slot]) -> Iterator[str]:
    """Yields the GPUs that several replicas share though one of them is to be alone."""
    for device, count in Counter(device for slot in slots for device in devices_of(slot)).items():
        if device[1] is None:
            continue  # of a host only memory is asked
        here = [each for each in stand if device in devices_of(each.slot)]
        may_share = wanted.allows_sharing and all(each.owner is None or each.owner.allows_sharing for each in here)
        if len(here) + count > 1 and not may_share:
            yield f"sharing: {device} has {len(here) + count} replicas"


def _together(wanted: Wanted, stand: Sequence[Occupant], slots: Sequence[Slot]) -> Iterator[str]:
    """Yields the pairs that are together though one of the two is to be apart from the other."""
    for position, slot in enumerate(slots):
        others = [(each.slot, each.owner) for each in stand if each.owner is not None]
        for other, owner in [*others, *((each, wanted) for each in slots[:position])]:
            rules = [rule for rule in wanted.anti_affinity if _means(rule, wanted, owner)]
            if owner.uid != wanted.uid:
                rules += [rule for rule in owner.anti_affinity if _means(rule, owner, wanted)]
            on_node = any(not rule.on_gpu for rule in rules) and slot[0] == other[0]
            on_gpu = any(rule.on_gpu for rule in rules) and set(devices_of(slot)) & set(devices_of(other))
            if on_node or on_gpu:
                yield f"apart: {slot} is beside {owner.deployment} in {other}"


def _means(rule: AntiAffinity, of: Wanted, other: Wanted) -> bool:
    if not rule.labels:
        return other.uid == of.uid
    return other.uid != of.uid and rule.labels <= other.labels


def _too_many_gpus(scene: Scene, slots: Sequence[Slot]) -> Iterator[str]:
    used = len(counts_of(scene, slots)[0])
    if scene.wanted.gpu_count is not None and used > scene.wanted.gpu_count:
        yield f"gpu_count: {used} GPUs are used"


def _overlapping(scene: Scene, slots: Sequence[Slot]) -> Iterator[str]:
    if scene.wanted.gpu_count is None:
        return
    stand = [slot_of(each) for each in scene.own]
    for position, slot in enumerate(slots):
        for other in (*stand, *slots[:position]):
            common = set(devices_of(slot)) & set(devices_of(other))
            if common and set(devices_of(slot)) != set(devices_of(other)):
                yield f"overlap: {slot} and {other} have some GPUs in common, not all"


def _unused(scene: Scene, slots: Sequence[Slot]) -> list[str]:
    """Returns what is wrong if all replicas are placed on fewer GPUs than a gpu_count says and they can use."""
    gang, gpu_count = max(1, scene.wanted.gpus_per_replica or 0), scene.wanted.gpu_count
    if gpu_count is None or scene.wanted.replica_count * gang < gpu_count:
        return []
    stand, used = (len(counts_of(scene, each)[0]) for each in ((), slots))
    # What stands is not moved, so only the new ones can use GPUs that none has yet.
    most = min(gpu_count, stand + len(slots) * gang)
    return [] if used >= most else [f"gpu_count: {used} GPUs are used of {most}"]


def _uneven(scene: Scene, slots: Sequence[Slot]) -> list[str]:
    """Returns what is wrong if all replicas are placed, and another way would have more even counts."""
    if scene.wanted.gpu_count is None:
        return []
    counts, _ = counts_of(scene, slots)
    if counts[0] - counts[-1] <= 1:
        return []
    others = (counts_of(scene, way)[0] for way in ways(scene, len(slots)))
    even = next((other for other in others if other[0] - other[-1] <= 1), None)
    return [f"even: {counts} replicas, and {even} were possible"] if even else []
