"""What is wrong with a report, whatever the state. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, cycle
from operator import attrgetter, le

from controlplane import wire
from controlplane.api.cache_checks import check_cached
from roundhouse.internal.v1.agent_service_pb2 import (
    MODEL_STATE_AT_HUB,
    EngineReport,
    JoinRequest,
    ModelFacts,
    NodeFacts,
)
from roundhouse.kit.errors import NotReady
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.v1 import errors_pb2
from roundhouse.v1.node_pb2 import Gpu, Taint

# The versions of the protocol that this control plane speaks.
PROTOCOL_VERSION = 1
LOWEST_PROTOCOL_VERSION = 1
MAX_GPUS = 1024  # of a node; an agent simulates 64 at most, and no machine holds more
MAX_GPU_UUID = 80  # characters; an assignment has room for so many with each replica, and NVML gives 40
# More than can be assigned to a node, whose assignment is one value of the store: no deployment can make a report of an
# agent too long, and with it lose the node for all others.
MAX_ENGINES = 16_384
MAX_MODELS = 4096  # questions about models stand for seconds only
MAX_FACTS_BYTES = 1024 * 1024  # `ListNodes` and `WatchNodes` send them, and clients take 4 MiB
MAX_MEMORY_BYTES = 2**47  # 128 TiB: what so many engines and as many placements hold can be summed up in an int64
MAX_PROCESSES = 32  # of a GPU that are named; the others are counted
MAX_DISKS = 64
MAX_VERSIONS = 128  # of packages that an engine names
MAX_TAINTS = 64
MAX_LABEL_KEY, MAX_LABEL_VALUE = 63, 255  # characters, of a taint as well


class _Ranges:
    """Which values the number fields of one kind of message may have. One that is unset is 0, which is in every range.

    Reports come a thousand a second, and hardly any has a mistake: all values are looked at in one go, and only if one
    is out of its range, one by one.
    """

    def __init__(self, **ranges: tuple[float, float]) -> None:
        self._names = tuple(ranges)
        self._lowest, self._highest = zip(*ranges.values(), strict=True)
        self._values = attrgetter(*ranges)

    def hold(self, holders: Iterable[object]) -> bool:
        """Tells whether every value of all is in its range. NaN is in none."""
        values = list(chain.from_iterable(map(self._values, holders)))
        return all(map(le, cycle(self._lowest), values)) and all(map(le, values, cycle(self._highest)))

    def check(self, check: FieldCheck, holder: object, field: str) -> None:
        """Notes each value that is out of its range."""
        values = self._values(holder)
        for name, lowest, value, highest in zip(self._names, self._lowest, values, self._highest, strict=True):
            if not lowest <= value <= highest:
                words = f"{value} is out of range: report {lowest} to {highest}"
                check.require(False, f"{field}.{name}", words)


_BYTES, _FRACTION = (0, MAX_MEMORY_BYTES), (0, 1)
# What somebody decides by or sums up. The rest, temperatures say, is shown as it comes.
_GPU = _Ranges(
    index=(0, 2**31 - 1),
    total_memory_bytes=_BYTES,
    used_memory_bytes=_BYTES,
    free_memory_bytes=_BYTES,
    foreign_memory_bytes=_BYTES,
    driver_memory_bytes=_BYTES,
    utilization_fraction=_FRACTION,
    last_utilization_fraction=_FRACTION,
    memory_utilization_fraction=_FRACTION,
    last_memory_utilization_fraction=_FRACTION,
)
_HOST = _Ranges(
    total_memory_bytes=_BYTES,
    available_memory_bytes=_BYTES,
    cpu_fraction=_FRACTION,
    last_cpu_fraction=_FRACTION,
)
_ENGINE = _Ranges(reserved_memory_bytes=_BYTES, measured_memory_bytes=_BYTES, peak_memory_bytes=_BYTES)
_PROGRESS = _Ranges(done_bytes=_BYTES, total_bytes=_BYTES, fraction=_FRACTION)
_UUID: Callable[[Gpu], str] = attrgetter("uuid")
_PROCESSES: Callable[[Gpu], Sequence[object]] = attrgetter("processes")
_MODEL_SIZES = ("weight_bytes", "parameter_count", "context_tokens", "kv_elements_per_token", "fetch_bytes")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_IDS = ("node_uid", "agent_uid", "machine_id")


def choose_version(report: JoinRequest) -> int:
    """Returns the newest version that both sides speak; raises NotReady (PROTOCOL_UNSUPPORTED) if there is none."""
    newest, lowest = report.protocol_version, report.lowest_protocol_version
    chosen = min(newest, PROTOCOL_VERSION)
    if chosen < max(lowest, LOWEST_PROTOCOL_VERSION):
        raise NotReady(
            f"the agent speaks versions {lowest} to {newest} of the protocol, the control plane "
            f"{LOWEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}: update the older of the two",
            reason=errors_pb2.ERROR_REASON_PROTOCOL_UNSUPPORTED,
        )
    return chosen


def check_report(report: JoinRequest) -> None:
    """Raises InvalidArgument if a report is malformed."""
    check = FieldCheck()
    check.require(is_id(report.node_id), "node_id", f'"{report.node_id[:100]}" is not an id: use {ID_RULE}')
    for field in _IDS:
        check.require(bool(getattr(report, field)), field, "is empty: every report needs it")
    check.require(report.HasField("node"), "node", "is missing: every report is whole")
    _check_facts(check, report.node)
    _check_engines(check, report.engines)
    _check_count(check, "refusals", len(report.refusals), MAX_ENGINES)
    _check_models(check, report.models)
    check_cached(check, report.cached_models)
    check.raise_if_any()


def check_same(first: JoinRequest, report: JoinRequest) -> None:
    """Raises InvalidArgument if a report is of another node or agent than the first of its call."""
    check = FieldCheck()
    for field in ("node_id", *_IDS):
        same = getattr(first, field) == getattr(report, field)
        check.require(same, field, "changed within the call: call again instead")
    check.raise_if_any()


def _check_facts(check: FieldCheck, facts: NodeFacts) -> None:
    if not _check_count(check, "node.gpus", len(facts.gpus), MAX_GPUS):
        return
    size = facts.ByteSize()
    if size > MAX_FACTS_BYTES:
        check.require(False, "node", f"{size} bytes are too many: use at most {MAX_FACTS_BYTES}")
    _HOST.check(check, facts.host, "node.host")
    _check_count(check, "node.host.disks", len(facts.host.disks), MAX_DISKS)
    if _check_count(check, "node.taints", len(facts.taints), MAX_TAINTS):
        _check_taints(check, facts.taints)
    _check_gpus(check, facts.gpus)


def _check_taints(check: FieldCheck, taints: Iterable[Taint]) -> None:
    for index, taint in enumerate(taints):
        holds = 1 <= len(taint.key) <= MAX_LABEL_KEY and len(taint.value) <= MAX_LABEL_VALUE
        cure = f"use a key of 1 to {MAX_LABEL_KEY} characters and a value of at most {MAX_LABEL_VALUE}"
        check.require(holds, f"node.taints[{index}]", f"is malformed: {cure}")


def _check_gpus(check: FieldCheck, gpus: Sequence[Gpu]) -> None:
    uuids = list(map(_UUID, gpus))
    lengths = list(map(len, uuids))
    are_named = min(lengths, default=1) >= 1 and max(lengths, default=1) <= MAX_GPU_UUID and len({*uuids}) == len(uuids)
    if are_named and max(map(len, map(_PROCESSES, gpus)), default=0) <= MAX_PROCESSES and _GPU.hold(gpus):
        return
    for index, gpu in enumerate(gpus):
        _name_mistakes(check, gpu, f"node.gpus[{index}]", is_twice=gpu.uuid in uuids[:index])


def _name_mistakes(check: FieldCheck, gpu: Gpu, field: str, *, is_twice: bool) -> None:
    count = len(gpu.uuid)
    check.require(1 <= count <= MAX_GPU_UUID, f"{field}.uuid", f"has {count} characters: use 1 to {MAX_GPU_UUID}")
    check.require(not is_twice, f"{field}.uuid", f'"{gpu.uuid[:100]}" is there twice: name each GPU once')
    _check_count(check, f"{field}.processes", len(gpu.processes), MAX_PROCESSES)
    _GPU.check(check, gpu, field)


def _check_engines(check: FieldCheck, engines: Sequence[EngineReport]) -> None:
    if not _check_count(check, "engines", len(engines), MAX_ENGINES):
        return
    seen: set[str] = set()
    for index, engine in enumerate(engines):
        field = f"engines[{index}]"
        ids = wire.REPLICA.match(engine.replica)
        if ids is None or not (is_id(ids[0]) and ids[1].isdecimal()):
            words = f'"{engine.replica[:100]}" is malformed: use {wire.REPLICA.pattern}'
            check.require(False, f"{field}.replica", words)
        uid = engine.replica_uid
        if not uid or uid in seen:
            check.require(False, f"{field}.replica_uid", "is empty or there twice: report each engine once")
        seen.add(uid)
        _check_count(check, f"{field}.gpu_uuids", len(engine.gpu_uuids), MAX_GPUS)
        _check_count(check, f"{field}.package_versions", len(engine.package_versions), MAX_VERSIONS)
        _ENGINE.check(check, engine, field)
        if engine.HasField("progress"):
            _PROGRESS.check(check, engine.progress, f"{field}.progress")


def _check_models(check: FieldCheck, models: Sequence[ModelFacts]) -> None:
    if _check_count(check, "models", len(models), MAX_MODELS):
        for index, facts in enumerate(models):
            for name in _MODEL_SIZES:
                size = getattr(facts, name)
                check.require(size >= 0, f"models[{index}].{name}", f"{size} is below 0: report what the files say")
            if facts.state == MODEL_STATE_AT_HUB:
                is_commit = _COMMIT.match(facts.commit) is not None
                check.require(is_commit, f"models[{index}].commit", "is no commit: report the one that the hub says")


def _check_count(check: FieldCheck, field: str, count: int, most: int) -> bool:
    return count <= most or check.require(False, field, f"{count} are too many: report at most {most}")
