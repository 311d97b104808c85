"""What is wrong with a placement policy, whatever the fleet. Pure; every violation is named at once."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane import wire
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.v1.deployment_pb2 import AntiAffinityScope, NodeGpus, PlacementPolicy

MAX_REPLICAS = 1000
MAX_GPUS_PER_REPLICA = 16
MAX_ALLOWED = 1024  # entries, and indexes and UUIDs of all of them together
MAX_LABELS = 64
MAX_TOLERATIONS = 64
MAX_ANTI_AFFINITY = 16
_MIB = 1024 * 1024
_AT = "deployment.placement"


def check_policy(check: FieldCheck, policy: PlacementPolicy, replica_count: int) -> None:
    """Notes what no fleet could satisfy, and what is too much to be stored."""
    per_replica = policy.gpus_per_replica if policy.HasField("gpus_per_replica") else 1
    field = f"{_AT}.gpus_per_replica"
    in_range = check.require(
        0 <= per_replica <= MAX_GPUS_PER_REPLICA,
        field,
        f"{per_replica} is out of range: use 0 to {MAX_GPUS_PER_REPLICA}",
    )
    if policy.HasField("gpu_count"):
        _check_gpu_count(check, policy.gpu_count, per_replica if in_range else 1, replica_count)
    if policy.HasField("memory_bytes"):
        field, given = f"{_AT}.memory_bytes", policy.memory_bytes
        check.require(given >= _MIB, field, f"{given} is too little: use 1 MiB or more")
    if policy.HasField("memory_fraction"):
        field, share = f"{_AT}.memory_fraction", policy.memory_fraction
        check.require(0 < share <= 1, field, f"{share:g} is out of range: use more than 0, and at most 1")
        check.require(not policy.HasField("memory_bytes"), field, "memory_bytes is given as well: give one of them")
    _check_allowed(check, policy)
    _check_labels(check, f"{_AT}.node_labels", policy.node_labels)
    if _check_number(check, f"{_AT}.tolerations", len(policy.tolerations), MAX_TOLERATIONS):
        for index, each in enumerate(policy.tolerations):
            fits = 1 <= len(each.key) <= 63 and len(each.value) <= 255
            cure = "use a key of 1 to 63 characters, or *, and a value of at most 255"
            check.require(fits, f"{_AT}.tolerations[{index}]", f'"{each.key[:63]}": {cure}')
    if _check_number(check, f"{_AT}.anti_affinity", len(policy.anti_affinity), MAX_ANTI_AFFINITY):
        for index, apart in enumerate(policy.anti_affinity):
            field = f"{_AT}.anti_affinity[{index}]"
            known = apart.scope in AntiAffinityScope.values()
            check.require(known, f"{field}.scope", f"{apart.scope} is unknown: use NODE or GPU")
            _check_labels(check, f"{field}.deployment_labels", apart.deployment_labels)


def _check_gpu_count(check: FieldCheck, gpu_count: int, per_replica: int, replica_count: int) -> None:
    field = f"{_AT}.gpu_count"
    if not check.require(
        1 <= gpu_count <= MAX_REPLICAS, field, f"{gpu_count} is out of range: use 1 to {MAX_REPLICAS}"
    ):
        return
    most = max(replica_count, 0) * max(1, per_replica)
    check.require(
        gpu_count <= most,
        field,
        f"{gpu_count} GPUs are more than {replica_count} replicas can use: ask for fewer GPUs",
    )
    whole = gpu_count % max(1, per_replica) == 0
    check.require(whole, field, f"{gpu_count} is no multiple of gpus_per_replica, {per_replica}: make it one")


def _check_allowed(check: FieldCheck, policy: PlacementPolicy) -> None:
    field, entries = f"{_AT}.allowed_gpus", policy.allowed_gpus
    if not _check_number(check, field, len(entries), MAX_ALLOWED):
        return
    named = sum(len(each.indexes) + len(each.uuids) for each in entries)
    if _check_number(check, field, named, MAX_ALLOWED):
        for index, each in enumerate(entries):
            _check_node_gpus(check, f"{field}[{index}]", each)


def _check_node_gpus(check: FieldCheck, field: str, gpus: NodeGpus) -> None:
    ids = wire.NODE.match(gpus.node)
    form = f'"{gpus.node[:100]}" is malformed: use the form {wire.NODE.pattern}, or nodes/- for every node'
    if check.require(ids is not None, f"{field}.node", form) and ids is not None:
        known = ids[0] == wire.ANY or is_id(ids[0])
        check.require(known, f"{field}.node", f'"{ids[0][:100]}" is not an id: use {ID_RULE}')
    negative = next((each for each in gpus.indexes if each < 0), None)
    check.require(negative is None, f"{field}.indexes", f"{negative} is out of range: use 0 or more")
    long = next((each for each in gpus.uuids if not 1 <= len(each) <= 100), None)
    check.require(long is None, f"{field}.uuids", "hold one that is empty or too long: use 1 to 100 characters")


def _check_labels(check: FieldCheck, field: str, labels: Mapping[str, str]) -> None:
    if _check_number(check, field, len(labels), MAX_LABELS):
        for key, value in labels.items():
            fits = 1 <= len(key) <= 63 and len(value) <= 255
            cure = "use keys of 1 to 63 characters and values of at most 255"
            check.require(fits, field, f'"{key[:63]}": {cure}')


def _check_number(check: FieldCheck, field: str, count: int, most: int) -> bool:
    return check.require(count <= most, field, f"{count} are too many: use at most {most}")
