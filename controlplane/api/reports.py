"""What is wrong with a report, whatever the state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane import wire
from roundhouse.internal.v1.agent_service_pb2 import EngineReport, JoinRequest, ModelFacts, NodeFacts
from roundhouse.kit.errors import NotReady
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.v1 import errors_pb2
from roundhouse.v1.node_pb2 import Gpu

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
_GPU_BYTES = ("total_memory_bytes", "used_memory_bytes", "free_memory_bytes", "foreign_memory_bytes")
_GPU_FRACTIONS = ("utilization_fraction", "last_utilization_fraction")
_HOST_BYTES = ("total_memory_bytes", "available_memory_bytes")
_ENGINE_BYTES = ("reserved_memory_bytes", "measured_memory_bytes")
_MODEL_SIZES = ("weight_bytes", "parameter_count", "context_tokens", "kv_elements_per_token")
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
    check.require(size <= MAX_FACTS_BYTES, "node", f"{size} bytes are too many: use at most {MAX_FACTS_BYTES}")
    _check_memory(check, "node.host", facts.host, _HOST_BYTES)
    _check_fraction(check, "node.host.cpu_fraction", facts.host.cpu_fraction)
    _check_gpus(check, facts.gpus)


def _check_gpus(check: FieldCheck, gpus: Iterable[Gpu]) -> None:
    seen: set[str] = set()
    for index, gpu in enumerate(gpus):
        field = f"node.gpus[{index}]"
        holds = 1 <= len(gpu.uuid) <= MAX_GPU_UUID
        check.require(holds, f"{field}.uuid", f"has {len(gpu.uuid)} characters: use 1 to {MAX_GPU_UUID}")
        check.require(gpu.uuid not in seen, f"{field}.uuid", f'"{gpu.uuid[:100]}" is there twice: name each GPU once')
        seen.add(gpu.uuid)
        check.require(gpu.index >= 0, f"{field}.index", f"{gpu.index} is below 0: count from 0")
        _check_memory(check, field, gpu, _GPU_BYTES)
        for name in _GPU_FRACTIONS:
            if gpu.HasField(name):
                _check_fraction(check, f"{field}.{name}", getattr(gpu, name))


def _check_engines(check: FieldCheck, engines: Sequence[EngineReport]) -> None:
    if not _check_count(check, "engines", len(engines), MAX_ENGINES):
        return
    seen: set[str] = set()
    for index, engine in enumerate(engines):
        field = f"engines[{index}]"
        ids = wire.REPLICA.match(engine.replica)
        named = ids is not None and is_id(ids[0]) and ids[1].isdecimal()
        check.require(named, f"{field}.replica", f'"{engine.replica[:100]}" is malformed: use {wire.REPLICA.pattern}')
        unique = bool(engine.replica_uid) and engine.replica_uid not in seen
        check.require(unique, f"{field}.replica_uid", "is empty or there twice: report each engine once")
        seen.add(engine.replica_uid)
        _check_count(check, f"{field}.gpu_uuids", len(engine.gpu_uuids), MAX_GPUS)
        _check_memory(check, field, engine, _ENGINE_BYTES)


def _check_models(check: FieldCheck, models: Sequence[ModelFacts]) -> None:
    if _check_count(check, "models", len(models), MAX_MODELS):
        for index, facts in enumerate(models):
            for name in _MODEL_SIZES:
                size = getattr(facts, name)
                check.require(size >= 0, f"models[{index}].{name}", f"{size} is below 0: report what the files say")


def _check_count(check: FieldCheck, field: str, count: int, most: int) -> bool:
    return check.require(count <= most, field, f"{count} are too many: report at most {most}")


def _check_memory(check: FieldCheck, field: str, holder: object, names: Iterable[str]) -> None:
    wrong = [(name, size) for name in names if not 0 <= (size := getattr(holder, name)) <= MAX_MEMORY_BYTES]
    for name, size in wrong:
        check.require(False, f"{field}.{name}", f"{size} bytes are out of range: report 0 to {MAX_MEMORY_BYTES}")


def _check_fraction(check: FieldCheck, field: str, fraction: float) -> None:
    holds = 0.0 <= fraction <= 1.0  # not of NaN
    check.require(holds, field, f"{fraction:g} is out of range: report 0 to 1")
