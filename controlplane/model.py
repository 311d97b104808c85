"""The values that decisions are made of: what is wanted, what is known, what is placed. No wire, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

from controlplane.routing_policies import RoutingPolicy

NodeId = NewType("NodeId", str)
GpuUuid = NewType("GpuUuid", str)
ReplicaUid = NewType("ReplicaUid", str)

# What decided whether a deployment shares its GPUs, and so what could be changed about it: the cluster's default or the
# request that creates it now, or what was stored when it was created.
SharingSource = Literal["default", "request", "record"]


@dataclass(frozen=True, slots=True)
class Need:
    """Memory that one replica needs on its GPU (or in the memory of the host), in bytes."""

    total_bytes: int
    weight_bytes: int = 0
    kv_cache_bytes: int = 0
    overhead_bytes: int = 0
    is_stated: bool = False
    device: str = ""  # `cuda`: what it is on a host is not known
    is_fitted: bool = False  # context or cache were fitted to what was free at creation
    gpu_count: int = 1  # among which weights and cache were divided; the total is for each. 0: in the memory of a host


@dataclass(frozen=True, slots=True)
class Taint:
    """What keeps replicas off a node unless their deployment tolerates it."""

    key: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Toleration:
    """Taints that do not keep replicas off."""

    key: str  # `*`: any
    value: str | None = None  # None: any


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """GPUs of one node, or of every node; all of its GPUs if neither indexes nor uuids are named."""

    node: NodeId | None  # None: every node
    indexes: frozenset[int] = frozenset()
    uuids: frozenset[GpuUuid] = frozenset()


@dataclass(frozen=True, slots=True)
class AntiAffinity:
    """Replicas beside which none of a deployment is placed, and none of those beside one of its own."""

    labels: frozenset[tuple[str, str]]  # that the other deployment has; empty: this very deployment
    on_gpu: bool = False  # on different GPUs; else on different nodes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deployment, as placement sees it."""

    deployment: str  # bare id
    uid: str
    generation: int
    replica_count: int
    need: Need
    strategy: str
    gpu_count: int | None  # how many distinct GPUs all replicas may use together
    allows_sharing: bool
    sharing_source: SharingSource = "record"
    is_for_gpus: bool = False  # it was sized for GPUs, so what it needs on a host is not known
    create_revision: int = 0  # of the store: what was made first is placed first
    is_deleting: bool = False
    drain_grace_s: float = 30.0
    gpus_per_replica: int | None = None  # 0: in the memory of a host; None: stored before there was a choice
    allowed_gpus: tuple[NodeGpus, ...] = ()  # empty: all
    node_labels: frozenset[tuple[str, str]] = frozenset()
    tolerations: tuple[Toleration, ...] = ()
    anti_affinity: tuple[AntiAffinity, ...] = ()
    labels: frozenset[tuple[str, str]] = frozenset()  # its own
    spec_generation: int = 0  # names what its replicas are to run
    max_surge: int = 1  # replicas beside those that are wanted, and those that stop, while they are replaced
    max_unavailable: int = 0  # of those that are wanted, that may be missing then
    rollout_grace_s: float = 300.0  # for running requests of one that was replaced


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a replica is, or stops being."""

    deployment: str
    deployment_uid: str
    index: int
    replica_uid: ReplicaUid
    epoch: int
    node: NodeId
    gpus: tuple[GpuUuid, ...]  # empty: in the memory of the host
    reserved_bytes: int
    is_stopping: bool = False
    drain_grace_s: float = 30.0
    spec_generation: int = 0  # names what it runs


@dataclass(slots=True)  # not frozen, which would take twice as long to make, and reports bring thousands a second
class Gpu:
    """A GPU as last reported. Nothing changes it."""

    uuid: GpuUuid
    index: int
    total_bytes: int
    used_bytes: int
    utilization_fraction: float
    is_healthy: bool = True
    nvlink_island: int | None = None  # GPUs of a node with the same number reach one another over NVLink


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine as last reported."""

    replica_uid: ReplicaUid
    gpus: tuple[GpuUuid, ...]
    reserved_bytes: int
    measured_bytes: int
    is_gone: bool  # STOPPED: no process, memory released
    is_serving: bool = False  # READY
    has_failed: bool = False  # FAILED: it may be started again
    load: int = 0  # sequences that run or wait


@dataclass(frozen=True, slots=True)
class Node:
    """A node as last reported.

    `is_ready` is false while it is UNKNOWN or LOST; `applied` orders its newest applied assignment.
    """

    id: NodeId
    is_ready: bool
    gpus: tuple[Gpu, ...]
    engines: tuple[Engine, ...]
    host_total_bytes: int
    host_available_bytes: int
    applied: tuple[int, int] = (0, 0)  # (term, generation)
    refused: Mapping[ReplicaUid, str] | None = None  # replicas that it will not start, with its reasons
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    refused_altogether: frozenset[ReplicaUid] = frozenset()  # of those, whom none of its devices would do
    is_cordoned: bool = False  # it takes no new replicas


@dataclass(frozen=True, slots=True)
class Drain:
    """How replicas are moved off a node by an operator's wish."""

    grace_s: float  # for running requests of a replica that was replaced
    allows_unserved: bool = False  # what has no room elsewhere is stopped too


@dataclass(frozen=True, slots=True)
class NodeWish:
    """What an operator wants of a node that he has cordoned."""

    drain: Drain | None = None


@dataclass(frozen=True, slots=True)
class Attendance:
    """Which nodes are silent, as far as somebody was there to hear them."""

    lease_s: float
    silent_s: Mapping[NodeId, float]  # since the last report, of those that were heard of and have been silent for long
    running_s: float  # since the start; a node that was not heard of has been silent since then, at least
    watched_s: float  # since the start, or since the process last stood still


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A replica for which there is no place, why, and what each GPU lacks."""

    deployment: str
    index: int
    reason: str
    lacks: tuple[tuple[str, str], ...] = ()  # (subject such as "nodes/a/gpus/0", sentence with the numbers)
    waits_its_turn: bool = False  # nothing is in its way but others that go before it


@dataclass(frozen=True, slots=True)
class Route:
    """A replica that can be called, with what proves to its engine that the call is meant for it."""

    deployment: str
    index: int
    replica_uid: ReplicaUid
    epoch: int
    node: NodeId
    address: str  # host:port of the engine
    engine_uuid: str
    engine_key: bytes = field(repr=False)
    is_ready: bool  # READY by a report that is not older than the lease; a draining engine can still be asked to cancel
    running_count: int
    waiting_count: int
    is_stale: bool = False  # how busy it is is not known, or was so at another time: it may be as busy as can be
    used_block_eighths: int = 0  # of its KV blocks, that requests hold; coarse, so that it seldom changes by itself
    fingerprint: str = ""  # of its engine; empty if that is not known
    max_running_count: int = 0  # sequences that it runs at a time; 0: it does not say
    kv_token_count: int = 0  # that fit in its cache; 0: it does not say


@dataclass(frozen=True, slots=True)
class Routes:
    """Every deployment that exists, and the replicas of each that have an engine. What a gateway knows of the fleet."""

    replicas: Mapping[str, tuple[Route, ...]]  # by bare deployment id; an empty tuple: it exists, nothing runs
    deleting: frozenset[str] = frozenset()
    # Of each deployment the replicas whose node was not heard of since the control plane started: their indexes by uid.
    silent: Mapping[str, Mapping[ReplicaUid, int]] = field(default_factory=dict)
    policies: Mapping[str, RoutingPolicy] = field(default_factory=dict)  # of those that are not routed by the default
    is_current: bool = True  # else there may be deployments and replicas by now that are not among them
    gateway_count: int = 1  # that may send requests there, the control plane's own among them


EVERYBODY_ELSE = "*"  # in place of a tenant: each one that is not named, the default tenant among them


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may use; None: any number."""

    requests_per_s: float | None = None
    tokens_per_min: float | None = None


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How requests wait for their turn at one gateway. Weights and quotas are by tenant."""

    queue_requests: int = 1024  # that wait for one deployment at the most; as many as an engine lets wait
    queue_tokens: int = 4_000_000  # of prompts, and of what is expected of outputs; those of 1,024 long requests
    weights: Mapping[str, float] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)

    def weight_of(self, tenant: str) -> float:
        """Returns how large a tenant's share is, beside those of others."""
        return self.weights.get(tenant, self.weights.get(EVERYBODY_ELSE, 1.0))

    def quota_of(self, tenant: str) -> Quota | None:
        """Returns what a tenant may use; None if that is not bounded."""
        return self.quotas.get(tenant, self.quotas.get(EVERYBODY_ELSE))
