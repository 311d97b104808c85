"""Says why a replica has no place, with the numbers and the cure. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.model import Need, SharingSource, Unplaced, Wanted
from controlplane.placement.fit import MAX_NODE_REPLICAS, Device, Obstacle
from controlplane.placement.gpu_sets import GpuSet
from roundhouse.kit.units import format_bytes

SHARE_SETTING = "ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU"
# What stands in the way of the least is told first: it is the nearest to being cured.
_NEAREST = (
    None,  # only `gpu_count` does
    Obstacle.NODE_FULL,
    Obstacle.MEMORY,
    Obstacle.NOT_SHARED,
    Obstacle.AVOIDED,
    Obstacle.FAILED,
    Obstacle.NOT_READY,
    Obstacle.HAS_GPUS,
    Obstacle.NEEDS_GPU,
)

_SHARING_CURES: Mapping[SharingSource, str] = {
    "default": f"set {SHARE_SETTING}=1",
    "request": "create it with allow_shared_gpu",
    "record": "delete it and create it again with allow_shared_gpu",
}

_AMONG = {Obstacle.MEMORY: ", the most of {1}", Obstacle.NOT_SHARED: " ({0} of {1} are taken)"}


def refusal(
    wanted: Wanted, indexes: Sequence[int], devices: Sequence[Device], allowed: GpuSet | None
) -> tuple[Unplaced, ...]:
    """Returns why each of these replicas has no place. devices: as they are when those that fit are placed."""
    lacks = tuple((device.subject, _sentence(wanted, device, allowed)) for device in devices)
    because = _because(wanted, devices, allowed)
    return tuple(
        Unplaced(wanted.deployment, index, f'replica "{wanted.deployment}-{index}" {because}', lacks)
        for index in indexes
    )


def _because(wanted: Wanted, devices: Sequence[Device], allowed: GpuSet | None) -> str:
    needs = f"needs {_arithmetic(wanted.need)}"
    if not devices:
        return f"{needs}; no node is connected: start a node agent"
    if allowed is not None and allowed.missing_count > 0:
        return f"{needs} on each of {_number(wanted.gpu_count or 0, devices)}; {_missing(wanted, devices, allowed)}"
    nearest = min(devices, key=lambda device: _distance(wanted, device))
    obstacle = _obstacle(wanted, nearest)
    alike = sum(_obstacle(wanted, device) is obstacle for device in devices)
    if obstacle is Obstacle.NOT_SHARED and not wanted.allows_sharing:
        needs += " on a GPU of its own"
    among = _AMONG.get(obstacle, "").format(alike, _number(len(devices), devices)) if obstacle and alike > 1 else ""
    return f"{needs}; {_sentence(wanted, nearest, allowed)}{among}: {_cure(wanted, obstacle)}"


def _missing(wanted: Wanted, devices: Sequence[Device], allowed: GpuSet) -> str:
    others = [device for device in devices if device.place not in allowed.places]
    usable = f"{_number(len(allowed.places), devices)} can be used"
    if not others:
        return f"{usable}: add a GPU, or lower gpu_count"
    nearest = min(others, key=lambda device: _distance(wanted, device))
    return f"{usable}, {_sentence(wanted, nearest, allowed)}: add a GPU, or lower gpu_count"


def _sentence(wanted: Wanted, device: Device, allowed: GpuSet | None) -> str:
    match _obstacle(wanted, device):
        case Obstacle.MEMORY:
            return f"{device.words} has {_available(device)}"
        case Obstacle.NODE_FULL:
            count = MAX_NODE_REPLICAS - device.node_room
            return f"node {device.node} has {count} replicas, and no node takes more than {MAX_NODE_REPLICAS}"
        case Obstacle.NOT_SHARED if not wanted.allows_sharing:
            return f'{device.words} is taken by "{device.occupants[0].name}" and sharing is off'
        case Obstacle.NOT_SHARED:
            owner = next(each.name for each in device.occupants if each.is_exclusive)
            return f'{device.words} is taken by "{owner}", which shares with nobody'
        case Obstacle.AVOIDED:
            return f"{device.words} was refused by its node"
        case Obstacle.FAILED:
            return f"{device.words} has failed"
        case Obstacle.NOT_READY:
            return f"node {device.node} does not report"
        case Obstacle.HAS_GPUS:
            return f"node {device.node} has no GPU, and other nodes have"
        case Obstacle.NEEDS_GPU:
            return f'node {device.node} has no GPU, and "{wanted.deployment}" was sized for GPUs'
        case None:
            is_ours = allowed is not None and device.place in allowed.places
            why = "it holds its share" if is_ours else "others are used"
            return f"{device.words} has {_available(device)}, but gpu_count is {wanted.gpu_count} and {why}"


def _cure(wanted: Wanted, obstacle: Obstacle | None) -> str:
    match obstacle:
        case Obstacle.MEMORY:
            return f"add a node, or lower {'memory_bytes' if wanted.need.is_stated else 'kv_cache_memory_bytes'}"
        case Obstacle.NODE_FULL:
            return "add a node, or ask for fewer replicas"
        case Obstacle.NOT_SHARED if not wanted.allows_sharing:
            return f"add a GPU, or {_SHARING_CURES[wanted.sharing_source]}"
        case Obstacle.NOT_SHARED:
            return "add a GPU, or delete that deployment and create it again with allow_shared_gpu"
        case Obstacle.AVOIDED:
            return "see the message of the replica, or add a node"
        case Obstacle.FAILED:
            return "mend the GPU, or add a node"
        case Obstacle.NOT_READY | Obstacle.HAS_GPUS:
            return "start its node agent, or add a node"
        case Obstacle.NEEDS_GPU:
            return "add a node with a GPU, or delete it and create it again for hosts"
        case None:
            return "raise gpu_count"


def _obstacle(wanted: Wanted, device: Device) -> Obstacle | None:
    return device.obstacle_to(wanted.need.total_bytes, is_exclusive=not wanted.allows_sharing)


def _distance(wanted: Wanted, device: Device) -> tuple[int, int, str, int]:
    return _NEAREST.index(_obstacle(wanted, device)), -device.available_bytes, device.node, device.index


def _available(device: Device) -> str:
    parts = [format_bytes(device.total_bytes)]
    parts += [f"{format_bytes(device.foreign_bytes)} used by others"] if device.foreign_bytes else []
    parts += [f"{format_bytes(device.held_bytes)} reserved"] if device.occupants else []
    sum_of = f" ({' - '.join(parts)})" if len(parts) > 1 else ""
    return f"{format_bytes(device.available_bytes)} available{sum_of}"


def _arithmetic(need: Need) -> str:
    total = format_bytes(need.total_bytes)
    if need.is_stated or not need.weight_bytes:
        return total
    parts = f"{format_bytes(need.weight_bytes)} weights + {format_bytes(need.kv_cache_bytes)} KV cache"
    return f"{total} ({parts} + {format_bytes(need.overhead_bytes)} overhead)"


def _number(count: int, devices: Sequence[Device]) -> str:
    noun = "GPU" if any(device.gpu is not None for device in devices) else "node"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
