"""What is wrong with a report, whatever the state. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane import wire
from roundhouse.internal.v1.agent_service_pb2 import EngineReport, JoinRequest
from roundhouse.kit.errors import NotReady
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.v1 import errors_pb2
from roundhouse.v1.node_pb2 import Gpu

# The versions of the protocol that this control plane speaks.
PROTOCOL_VERSION = 1
LOWEST_PROTOCOL_VERSION = 1
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
    _check_gpus(check, report.node.gpus)
    _check_engines(check, report.engines)
    check.raise_if_any()


def check_same(first: JoinRequest, report: JoinRequest) -> None:
    """Raises InvalidArgument if a report is of another node or agent than the first of its call."""
    check = FieldCheck()
    for field in ("node_id", *_IDS):
        same = getattr(first, field) == getattr(report, field)
        check.require(same, field, "changed within the call: call again instead")
    check.raise_if_any()


def _check_gpus(check: FieldCheck, gpus: Iterable[Gpu]) -> None:
    seen: set[str] = set()
    for index, gpu in enumerate(gpus):
        field = f"node.gpus[{index}]"
        check.require(bool(gpu.uuid), f"{field}.uuid", "is empty: a GPU is named by its UUID")
        check.require(gpu.uuid not in seen, f"{field}.uuid", f'"{gpu.uuid[:100]}" is there twice: name each GPU once')
        seen.add(gpu.uuid)
        sizes = (gpu.total_memory_bytes, gpu.used_memory_bytes, gpu.free_memory_bytes)
        check.require(min(sizes) >= 0, field, "has a negative size of memory: report bytes")


def _check_engines(check: FieldCheck, engines: Iterable[EngineReport]) -> None:
    seen: set[str] = set()
    for index, engine in enumerate(engines):
        field = f"engines[{index}]"
        ids = wire.REPLICA.match(engine.replica)
        named = ids is not None and is_id(ids[0]) and ids[1].isdecimal()
        check.require(named, f"{field}.replica", f'"{engine.replica[:100]}" is malformed: use {wire.REPLICA.pattern}')
        unique = bool(engine.replica_uid) and engine.replica_uid not in seen
        check.require(unique, f"{field}.replica_uid", "is empty or there twice: report each engine once")
        seen.add(engine.replica_uid)
        sizes = (engine.reserved_memory_bytes, engine.measured_memory_bytes)
        check.require(min(sizes) >= 0, field, "has a negative size of memory: report bytes")
