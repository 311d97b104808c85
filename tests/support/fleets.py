"""Nodes, deployments and placements in a few words, for tests of decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.model import (
    AntiAffinity,
    Engine,
    Gpu,
    GpuUuid,
    Need,
    Node,
    NodeGpus,
    NodeId,
    Placement,
    ReplicaUid,
    SharingSource,
    Taint,
    Toleration,
    Wanted,
)
from controlplane.placement.fit import Place
from controlplane.placement.ledger import Ledger
from controlplane.placement.place import Places, Proposal
from controlplane.placement.strategies import STRATEGIES, Strategy

GIB = 1024**3


@dataclass(frozen=True)
class Case:
    """What is wanted of a fleet, and where it should go."""

    name: str
    wanted: Wanted
    nodes: Sequence[Node]
    want: Sequence[str]
    placements: Sequence[Placement] = ()
    others: Sequence[Wanted] = ()  # deployments of the placements


def gpu(
    node: str,
    index: int,
    *,
    total_gib: float = 24,
    used_gib: float = 0,
    busy: float = 0.0,
    is_healthy: bool = True,
    island: int | None = None,
) -> Gpu:
    """Returns a GPU called `{node}-{index}`."""
    uuid = GpuUuid(f"{node}-{index}")
    return Gpu(uuid, index, int(total_gib * GIB), int(used_gib * GIB), busy, is_healthy, island)


def node(
    name: str,
    gpus: Sequence[Gpu] | int = 1,
    *,
    engines: Sequence[Engine] = (),
    is_ready: bool = True,
    host_gib: int = 64,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Taint] = (),
) -> Node:
    """Returns a node with these GPUs, or with so many idle ones of 24 GiB."""
    found = tuple(gpu(name, index) for index in range(gpus)) if isinstance(gpus, int) else tuple(gpus)
    return Node(
        NodeId(name),
        is_ready,
        found,
        tuple(engines),
        host_gib * GIB,
        host_gib * GIB,
        labels=labels or {},
        taints=tuple(taints),
    )


def wanted(
    deployment: str = "chat",
    replica_count: int = 1,
    *,
    need_gib: float = 5,
    gpu_count: int | None = None,
    allows_sharing: bool = True,
    sharing_source: SharingSource = "record",
    is_for_gpus: bool = False,
    create_revision: int = 0,
    uid: str = "",
    is_deleting: bool = False,
    drain_grace_s: float = 30.0,
    strategy: str = "idle_first",
    gpus_per_replica: int | None = 1,
    allowed_gpus: Sequence[NodeGpus] = (),
    node_labels: Mapping[str, str] | None = None,
    tolerations: Sequence[Toleration] = (),
    anti_affinity: Sequence[AntiAffinity] = (),
    labels: Mapping[str, str] | None = None,
) -> Wanted:
    """Returns a deployment with the uid `uid-{deployment}`."""
    return Wanted(
        deployment=deployment,
        uid=uid or f"uid-{deployment}",
        generation=1,
        replica_count=replica_count,
        need=Need(int(need_gib * GIB)),
        strategy=strategy,
        gpu_count=gpu_count,
        allows_sharing=allows_sharing,
        sharing_source=sharing_source,
        is_for_gpus=is_for_gpus,
        create_revision=create_revision,
        is_deleting=is_deleting,
        drain_grace_s=drain_grace_s,
        gpus_per_replica=gpus_per_replica,
        allowed_gpus=tuple(allowed_gpus),
        node_labels=frozenset((node_labels or {}).items()),
        tolerations=tuple(tolerations),
        anti_affinity=tuple(anti_affinity),
        labels=frozenset((labels or {}).items()),
    )


def placement(
    replica: str, place: str, *, gib: float = 5, uid: str = "", epoch: int = 1, is_stopping: bool = False
) -> Placement:
    """Returns the placement of `chat-0` on `a-0`, the GPU of node a, on `a-0+a-1`, or on the host of node `a`."""
    deployment, _, index = replica.rpartition("-")
    host, _, gpu_index = place.partition("-")
    return Placement(
        deployment=deployment,
        deployment_uid=uid or f"uid-{deployment}",
        index=int(index),
        replica_uid=ReplicaUid(f"{replica}/{epoch}"),
        epoch=epoch,
        node=NodeId(host),
        gpus=tuple(map(GpuUuid, place.split("+"))) if gpu_index else (),
        reserved_bytes=int(gib * GIB),
        is_stopping=is_stopping,
    )


def engine(of: Placement, *, measured_gib: float = 0, is_gone: bool = False) -> Engine:
    """Returns what a node reports of the engine of a placement."""
    return Engine(of.replica_uid, of.gpus, of.reserved_bytes, int(measured_gib * GIB), is_gone)


def place(
    wanted: Wanted,
    indexes: Sequence[int],
    *,
    placements: Sequence[Placement],
    nodes: Sequence[Node],
    others: Iterable[Wanted] = (),
    strategies: Mapping[str, Strategy] = STRATEGIES,
    avoid: Collection[Place] = (),
) -> Places:
    """Gives these replicas a place beside all placements that stand. others: whose deployments they are."""
    own = [each for each in placements if each.deployment_uid == wanted.uid]
    owners = {each.uid: each for each in (*others, wanted)}
    ledger = Ledger(nodes, placements, owners=owners, strategies=strategies)
    return ledger.give(wanted, indexes, own=own, avoid=avoid)


def where(proposals: Iterable[Proposal | Placement]) -> list[str]:
    """Returns the GPUs of each, as in `a-0+a-1`, or the node if it is on the host."""
    return ["+".join(each.gpus) or each.node for each in proposals]
