"""Says why a replica has no place, with the numbers and the cure. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from controlplane.model import Need, NodeGpus, SharingSource, Taint, Unplaced, Wanted
from controlplane.placement.board import Board
from controlplane.placement.constraints import missing_labels, untolerated
from controlplane.placement.fit import MAX_NODE_REPLICAS, Device, Obstacle, places_of
from controlplane.placement.gpu_sets import GpuSet
from roundhouse.kit.units import format_bytes, format_sum

SHARE_SETTING = "ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU"
# What stands in the way of the least is told first: it is the nearest to being cured.
_NEAREST = (
    None,  # only `gpu_count` does
    Obstacle.GANG,
    Obstacle.NODE_FULL,
    Obstacle.MEMORY,
    Obstacle.NOT_SHARED,
    Obstacle.APART,
    Obstacle.AVOIDED,
    Obstacle.NOT_ALLOWED,
    Obstacle.TAINT,
    Obstacle.LABELS,
    Obstacle.CORDONED,
    Obstacle.FAILED,
    Obstacle.NOT_READY,
    Obstacle.NEEDS_GPU,
)

_SHARING_CURES: Mapping[SharingSource, str] = {
    "default": f"set {SHARE_SETTING}=1",
    "request": "create it with allow_shared_gpu",
    "record": "delete it and create it again with allow_shared_gpu",
}

_AMONG = {
    Obstacle.MEMORY: ", the most of {1}",
    Obstacle.NOT_SHARED: " ({0} of {1} are taken)",
    Obstacle.APART: " (as {0} of {1} are)",
    Obstacle.NOT_ALLOWED: " (nor are {0} of {1})",
}
_MOST_NAMED = 8  # labels or GPUs in one sentence

_CURES: Mapping[Obstacle | None, str] = {
    None: "raise gpu_count",
    Obstacle.NODE_FULL: "add a node, or ask for fewer replicas",
    Obstacle.APART: "add a node, ask for fewer replicas, or leave out anti_affinity",
    Obstacle.AVOIDED: "see the message of the replica, or add a node",
    Obstacle.NOT_ALLOWED: "add it to allowed_gpus, or free one that is there",
    Obstacle.TAINT: "tolerate it with tolerations, or add a node without it",
    Obstacle.LABELS: "start its node agent with the labels, or ask for others in node_labels",
    Obstacle.FAILED: "mend the GPU, or add a node",
    Obstacle.CORDONED: "uncordon it, or add a node",
    Obstacle.NOT_READY: "start its node agent, or add a node",
    Obstacle.NEEDS_GPU: "add a node with a GPU, or delete it and create it again with gpus_per_replica 0",
}


def refusal(wanted: Wanted, indexes: Sequence[int], board: Board, allowed: GpuSet | None) -> tuple[Unplaced, ...]:
    """Returns why each of these replicas has no place. board: as it is when those that fit are placed."""
    sayings = _Sayings(wanted, board, allowed)
    lacks = tuple((device.subject, sayings.of(device)) for device in board.devices)
    because = sayings.because()
    return tuple(
        Unplaced(wanted.deployment, index, f'replica "{wanted.deployment}-{index}" {because}', lacks)
        for index in indexes
    )


def sentence(wanted: Wanted, board: Board, device: Device, allowed: GpuSet | None = None) -> str:
    """Returns what keeps replicas off one of the devices of a board, with the numbers."""
    return _Sayings(wanted, board, allowed).of(device)


class _Sayings:
    """What is said of the devices of one board."""

    def __init__(self, wanted: Wanted, board: Board, allowed: GpuSet | None) -> None:
        self._wanted, self._board, self._allowed = wanted, board, allowed
        self._in_set = {place for slot in allowed.slots for place in places_of(slot)} if allowed is not None else set()

    def because(self) -> str:
        """Returns what is needed, what the device that is nearest to having it lacks, and the cure."""
        wanted, devices = self._wanted, list(self._board.devices)
        size = self._board.gpus_per_replica
        needs = f"needs {_arithmetic(wanted.need)}"
        needs += f" on each of {size} GPUs of one node" if size > 1 else ""
        if not devices:
            return f"{needs}; no node is connected: start a node agent"
        if self._allowed is not None and self._allowed.missing_count > 0:
            return f"{needs}{self._missing(devices)}"
        obstacles = {device.place: self._board.obstacle(device) for device in devices}
        nearest = min(devices, key=self._distance)
        obstacle = obstacles[nearest.place]
        alike = sum(each is obstacle for each in obstacles.values())
        if obstacle is Obstacle.NOT_SHARED and not wanted.allows_sharing:
            needs += " on a GPU of its own" if size <= 1 else ", on GPUs of its own"
        among = (
            _AMONG[obstacle].format(alike, _number(len(devices), devices)) if obstacle in _AMONG and alike > 1 else ""
        )
        return f"{needs}; {self.of(nearest)}{among}: {self._cure(obstacle, nearest)}"

    def of(self, device: Device) -> str:
        """Returns what keeps replicas off a device."""
        return _SENTENCES[self._board.obstacle(device)](self, device)

    def _missing(self, devices: Sequence[Device]) -> str:
        assert self._allowed is not None
        others = [device for device in devices if device.place not in self._in_set]
        usable = f"{_number(len(self._in_set), devices)} can be used"
        asked = (
            "" if self._board.gpus_per_replica > 1 else f" on each of {_number(self._wanted.gpu_count or 0, devices)}"
        )
        if self._board.gpus_per_replica > 1:
            usable = f"gpu_count is {self._wanted.gpu_count} and {usable} in such sets"
        nearest = min(others, key=self._distance, default=None)
        lacking = "" if nearest is None else f", {self.of(nearest)}"
        if nearest is not None and self._board.gpus_per_replica > 1 and self._board.obstacle(nearest) is None:
            lacking = f", {nearest.words} has {_available(nearest)} and is left over"
        return f"{asked}; {usable}{lacking}: add a GPU, or lower gpu_count"

    def _cure(self, obstacle: Obstacle | None, device: Device) -> str:
        match obstacle:
            case Obstacle.MEMORY:
                return f"add a node, or {_smaller(self._wanted.need, device.available_bytes)}"
            case Obstacle.NOT_SHARED if not self._wanted.allows_sharing:
                return f"add a GPU, or {_SHARING_CURES[self._wanted.sharing_source]}"
            case Obstacle.NOT_SHARED:
                return "add a GPU, or delete that deployment and create it again with allow_shared_gpu"
            case Obstacle.GANG:
                return f"add a node with {self._board.gpus_per_replica} such GPUs, or lower gpus_per_replica"
            case _:
                return _CURES[obstacle]

    def _distance(self, device: Device) -> tuple[int, int, int, str, int]:
        obstacle = self._board.obstacle(device)
        roomy = self._board.roomy(device.node) if obstacle is Obstacle.GANG else 0
        return _NEAREST.index(obstacle), -roomy, -device.available_bytes, device.node, device.index

    def _is_left_out(self, device: Device) -> str:
        is_ours = device.place in self._in_set
        why = "it holds its share" if is_ours else "others are used"
        return f"{device.words} has {_available(device)}, but gpu_count is {self._wanted.gpu_count} and {why}"

    def _has_neighbour(self, device: Device) -> str:
        other = self._board.neighbour(device)
        assert other is not None, "that is what keeps it off"
        name = self._wanted.deployment
        is_own = other.owner is not None and other.owner.uid == self._wanted.uid
        return f'{device.words} is kept apart from "{other.name}" by anti_affinity of ' + (
            f'"{name}"' if is_own or other.owner is None else f'"{name}" or "{other.owner.deployment}"'
        )

    def _is_taken(self, device: Device) -> str:
        if not self._wanted.allows_sharing:
            return f'{device.words} is taken by "{device.occupants[0].name}" and sharing is off'
        owner = next(each.name for each in device.occupants if each.is_exclusive)
        return f'{device.words} is taken by "{owner}", which shares with nobody'

    def _lacks_gang(self, device: Device) -> str:
        size, count = self._board.gpus_per_replica, self._board.roomy(device.node)
        return f"node {device.node} has {count} of {size} such GPUs, GPU {device.index} with {_available(device)}"

    def _is_full(self, device: Device) -> str:
        count = MAX_NODE_REPLICAS - self._board.node_room(device.node)
        return f"node {device.node} has {count} replicas, and no node takes more than {MAX_NODE_REPLICAS}"

    def _lacks_labels(self, device: Device) -> str:
        missing = missing_labels(self._wanted, device)
        told = [
            f"{key}={value} ({f'it has {device.labels[key]}' if key in device.labels else 'it has none'})"
            for key, value in missing[:_MOST_NAMED]
        ]
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        return f"node {device.node} lacks the label {', '.join(told)}{more}"

    def _has_taint(self, device: Device) -> str:
        taint = untolerated(self._wanted, device)
        assert taint is not None, "that is what keeps it off"
        return f"node {device.node} has the taint {_taint(taint)}, which is not tolerated"

    def _is_not_allowed(self, device: Device) -> str:
        return f"{device.words} is not among allowed_gpus ({_allowed(self._wanted.allowed_gpus)})"

    def _needs_gpu(self, device: Device) -> str:
        why = "goes to GPUs" if self._wanted.gpus_per_replica else "was sized for GPUs"
        return f'node {device.node} has no GPU, and "{self._wanted.deployment}" {why}'


_SENTENCES: Mapping[Obstacle | None, Callable[[_Sayings, Device], str]] = {
    None: _Sayings._is_left_out,
    Obstacle.GANG: _Sayings._lacks_gang,
    Obstacle.NODE_FULL: _Sayings._is_full,
    Obstacle.MEMORY: lambda _, device: f"{device.words} has {_available(device)}",
    Obstacle.NOT_SHARED: _Sayings._is_taken,
    Obstacle.APART: _Sayings._has_neighbour,
    Obstacle.AVOIDED: lambda _, device: f"{device.words} was refused by its node",
    Obstacle.NOT_ALLOWED: _Sayings._is_not_allowed,
    Obstacle.TAINT: _Sayings._has_taint,
    Obstacle.LABELS: _Sayings._lacks_labels,
    Obstacle.FAILED: lambda _, device: f"{device.words} has failed",
    Obstacle.CORDONED: lambda _, device: f"node {device.node} is cordoned",
    Obstacle.NOT_READY: lambda _, device: f"node {device.node} does not report",
    Obstacle.NEEDS_GPU: _Sayings._needs_gpu,
}


def _available(device: Device) -> str:
    parts = [format_bytes(device.total_bytes)]
    parts += [f"{format_bytes(device.foreign_bytes)} used by others"] if device.foreign_bytes else []
    parts += [f"{format_bytes(device.held_bytes)} reserved"] if device.occupants else []
    sum_of = f" ({' - '.join(parts)})" if len(parts) > 1 else ""
    return f"{format_bytes(device.available_bytes)} available{sum_of}"


def _arithmetic(need: Need) -> str:
    parts = {"weights": need.weight_bytes, "KV cache": need.kv_cache_bytes, "overhead": need.overhead_bytes}
    return format_sum(need.total_bytes, {} if need.is_stated or not need.weight_bytes else parts)


def _number(count: int, devices: Sequence[Device]) -> str:
    noun = "GPU" if any(device.gpu is not None for device in devices) else "node"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _taint(taint: Taint) -> str:
    return f"{taint.key}={taint.value}" if taint.value else taint.key


def _allowed(entries: Sequence[NodeGpus]) -> str:
    told = [
        " ".join(
            [
                "every node" if each.node is None else f"node {each.node}",
                *([f"GPU {', '.join(map(str, sorted(each.indexes)))}"] if each.indexes else []),
                *sorted(each.uuids)[:_MOST_NAMED],
            ]
        )
        for each in entries[:_MOST_NAMED]
    ]
    return "; ".join([*told, *(["…"] if len(entries) > _MOST_NAMED else [])])


def _smaller(need: Need, available_bytes: int) -> str:
    """Returns how a replica can be made to need no more than what is available."""
    if need.is_stated:
        return "lower memory_bytes"
    if need.is_fitted or need.weight_bytes + need.overhead_bytes > available_bytes:
        return "take a smaller model, or a quantization"
    return "lower kv_cache_memory_bytes"
