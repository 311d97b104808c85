"""Fleets for the brute-force checker: a few words for cases by hand, and a strategy that draws small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

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
    Taint,
    Toleration,
    Wanted,
)
from tests.independent.brute_force import Scene

GIB = 1024**3
TIER, ZONE = ("tier", "gold"), ("zone", "x")  # labels


@dataclass(frozen=True, slots=True)
class Put:
    """A place that is proposed for a replica."""

    index: int
    node: NodeId
    gpus: tuple[GpuUuid, ...] = ()
    reserved_bytes: int = 4 * GIB
    deployment: str = "chat"


def uuids(node: str, *indexes: int) -> tuple[GpuUuid, ...]:
    """Returns what GPUs of a node are called."""
    return tuple(GpuUuid(f"{node}-{index}") for index in indexes)


def put(index: int, node: str, *gpus: int, reserved_gib: int = 4, deployment: str = "chat") -> Put:
    """Returns a place on these GPUs of a node, or on its host."""
    return Put(index, NodeId(node), uuids(node, *gpus), reserved_gib * GIB, deployment)


def gpu(node: str, index: int, *, total_gib: int = 8, used_gib: int = 0, is_healthy: bool = True) -> Gpu:
    """Returns an idle GPU."""
    return Gpu(GpuUuid(f"{node}-{index}"), index, total_gib * GIB, used_gib * GIB, 0.0, is_healthy)


def node(
    name: str,
    *gpus: Gpu,
    host_gib: int = 0,
    host_used_gib: int = 0,
    engines: Sequence[Engine] = (),
    is_ready: bool = True,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Taint] = (),
) -> Node:
    """Returns a node; its host has no memory to give unless said."""
    host_bytes = host_gib * GIB
    free_bytes = host_bytes - host_used_gib * GIB
    return Node(
        NodeId(name), is_ready, gpus, tuple(engines), host_bytes, free_bytes, labels=labels or {}, taints=tuple(taints)
    )


def wanted(
    replica_count: int = 1,
    *,
    deployment: str = "chat",
    need_gib: int = 4,
    gang: int = 1,
    gpu_count: int | None = None,
    allows_sharing: bool = True,
    allowed_gpus: Sequence[NodeGpus] = (),
    node_labels: Sequence[tuple[str, str]] = (),
    tolerations: Sequence[Toleration] = (),
    anti_affinity: Sequence[AntiAffinity] = (),
    labels: Sequence[tuple[str, str]] = (),
    strategy: str = "idle_first",
) -> Wanted:
    """Returns a deployment with the uid `uid-{deployment}`."""
    return Wanted(
        deployment=deployment,
        uid=f"uid-{deployment}",
        generation=1,
        replica_count=replica_count,
        need=Need(need_gib * GIB, is_stated=True, device="cuda" if gang else "cpu", gpu_count=gang),
        strategy=strategy,
        gpu_count=gpu_count,
        allows_sharing=allows_sharing,
        is_for_gpus=gang > 0,
        gpus_per_replica=gang,
        allowed_gpus=tuple(allowed_gpus),
        node_labels=frozenset(node_labels),
        tolerations=tuple(tolerations),
        anti_affinity=tuple(anti_affinity),
        labels=frozenset(labels),
    )


def placement(of: Wanted, index: int, node: str, *gpus: int, is_stopping: bool = False) -> Placement:
    """Returns where a replica stands."""
    replica_uid = ReplicaUid(f"{of.deployment}-{index}")
    return Placement(
        of.deployment, of.uid, index, replica_uid, 1, NodeId(node), uuids(node, *gpus), of.need.total_bytes, is_stopping
    )


def engine(of: Placement, *, measured_gib: int = 0, is_gone: bool = False) -> Engine:
    """Returns what a node reports of the engine of a placement."""
    return Engine(of.replica_uid, of.gpus, of.reserved_bytes, measured_gib * GIB, is_gone)


def scene(
    of: Wanted, nodes: Sequence[Node], placements: Sequence[Placement] = (), others: Sequence[Wanted] = ()
) -> Scene:
    """Returns a scene; `others` own what else stands."""
    return Scene(nodes, placements, {each.uid: each for each in (of, *others)}, of)


# ------------------------------------------------------------------------------------------------------- drawing


_T = TypeVar("_T")

# Labels differ between those that keep apart from `chat` and those that it keeps apart from: whether a rule with labels
# also means its own deployment is not what is drawn here.
_OWN_RULES = tuple(AntiAffinity(frozenset(labels), on_gpu) for labels in ((), (TIER,)) for on_gpu in (False, True))
_RULES = tuple(AntiAffinity(frozenset(labels), on_gpu) for labels in ((), (ZONE,)) for on_gpu in (False, True))


@st.composite
def scenes(draw: st.DrawFn, *, gangs: Sequence[int] = (1, 1, 1, 2, 2, 3, 0)) -> Scene:
    """Draws at most 3 nodes of 3 GPUs with what stands there, and a deployment of at most 4 replicas."""
    gang = draw(st.sampled_from(gangs))
    bare = [
        (f"{name}", draw(st.sampled_from([1, 2, 2, 3, 3] if gang else [0, 0, 1, 2])))
        for name in "abc"[: draw(st.integers(1, 3))]
    ]
    chat = draw(_chats(gang))
    others = [draw(_others(name)) for name in ("code", "math")[: draw(st.sampled_from([0, 1, 1, 2]))]]
    stand = draw(_standing(chat, others, bare))
    nodes = [draw(_nodes(name, gpu_count, stand)) for name, gpu_count in bare]
    return scene(chat, nodes, stand, others)


@st.composite
def _chats(draw: st.DrawFn, gang: int) -> Wanted:
    replica_count = draw(st.integers(1, 4))
    sets = st.integers(1, replica_count).map(lambda count: count * max(gang, 1))
    return wanted(
        replica_count,
        need_gib=draw(st.integers(2, 4)),
        gang=gang,
        gpu_count=draw(st.none() | sets),
        allows_sharing=draw(_often(True, False)),
        allowed_gpus=draw(_rarely(st.lists(_entries(), min_size=1, max_size=2), ())),
        node_labels=draw(_often((), (ZONE,))),
        tolerations=draw(st.sampled_from([(), (), (Toleration("*"),), (Toleration("dedicated", "ml"),)])),
        anti_affinity=draw(st.sampled_from([(), (), (), (), *((rule,) for rule in _OWN_RULES)])),
        labels=draw(st.sampled_from([(), (ZONE,)])),
    )


def _entries() -> st.SearchStrategy[NodeGpus]:
    some = st.frozensets(st.integers(0, 2), max_size=2)
    names = st.sampled_from([None, NodeId("a"), NodeId("b")])
    named = st.sampled_from([frozenset[GpuUuid](), frozenset(uuids("a", 0)), frozenset(uuids("b", 1))])
    return st.builds(NodeGpus, names, some, named)


@st.composite
def _others(draw: st.DrawFn, name: str) -> Wanted:
    return wanted(
        9,
        deployment=name,
        need_gib=draw(st.integers(1, 4)),
        gang=draw(st.sampled_from([1, 1, 1, 0, 2])),
        allows_sharing=draw(_often(True, False)),
        anti_affinity=draw(st.sampled_from([(), (), *((rule,) for rule in _RULES)])),
        labels=draw(st.sampled_from([(), (TIER,)])),
    )


@st.composite
def _standing(
    draw: st.DrawFn, chat: Wanted, others: Sequence[Wanted], bare: Sequence[tuple[str, int]]
) -> list[Placement]:
    """Draws what stands. It may break every rule: those it followed may have been others."""
    found: list[Placement] = []
    for owner in draw(st.lists(st.sampled_from([chat, *others]), min_size=draw(st.integers(0, 2)), max_size=4)):
        name, gpu_count = draw(st.sampled_from(bare))
        gang = owner.gpus_per_replica or 0
        if gang > gpu_count:
            continue
        # In the order of their indexes: what another order means is disputed.
        gpus = sorted(draw(st.permutations(range(gpu_count)))[:gang])
        index = sum(each.deployment == owner.deployment for each in found)
        found.append(placement(owner, index, name, *gpus, is_stopping=draw(_often(False, True))))
    own = [each for each in found if each.deployment_uid == chat.uid and not each.is_stopping]
    used = {(each.node, uuid) for each in own for uuid in each.gpus or (None,)}
    if any(each.index >= chat.replica_count for each in own) or len(used) > (chat.gpu_count or 9):
        return [each for each in found if each not in own]
    return found


@st.composite
def _nodes(draw: st.DrawFn, name: str, gpu_count: int, stand: Sequence[Placement]) -> Node:
    engines: list[Engine] = []
    for each in stand:
        if each.node == name and draw(st.booleans()):
            measured_gib = each.reserved_bytes // GIB + draw(st.sampled_from([0, -1, 1]))
            engines.append(engine(each, measured_gib=measured_gib))
    if draw(_often(False, True)):
        of_nobody = placement(
            wanted(deployment="old", need_gib=draw(st.integers(1, 2))), 0, name, *range(min(gpu_count, 1))
        )
        engines.append(engine(of_nobody, measured_gib=1, is_gone=draw(st.booleans())))

    def used_gib(gpu: GpuUuid | None) -> int:
        here = [each for each in engines if not each.is_gone and (gpu in each.gpus or (gpu is None and not each.gpus))]
        return draw(st.sampled_from([0, 0, 0, 1, 3])) + sum(each.measured_bytes for each in here) // GIB

    gpus: list[Gpu] = []
    for index in range(gpu_count):
        total_gib = draw(st.sampled_from([3, 6, 8, 12, 16]))
        used = min(total_gib, used_gib(GpuUuid(f"{name}-{index}")))
        gpus.append(gpu(name, index, total_gib=total_gib, used_gib=used, is_healthy=draw(_often(True, False))))
    host_gib = draw(st.sampled_from([4, 9, 16]))
    return node(
        name,
        *gpus,
        host_gib=host_gib,
        host_used_gib=min(host_gib, used_gib(None)),
        engines=engines,
        is_ready=draw(_often(True, False)),
        labels=draw(_often(dict([ZONE]), {})),
        taints=draw(_often((), (Taint("dedicated", "ml"),))),
    )


def _rarely(
    rare: st.SearchStrategy[Sequence[NodeGpus]], usual: Sequence[NodeGpus]
) -> st.SearchStrategy[Sequence[NodeGpus]]:
    return st.integers(0, 4).flatmap(lambda drawn: rare if drawn == 4 else st.just(usual))


def _often(usual: _T, *rare: _T) -> st.SearchStrategy[_T]:
    return st.sampled_from([usual] * 4 + list(rare))
