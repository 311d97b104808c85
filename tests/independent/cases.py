"""Cases made by hand: one for every rule, with the most of the missing replicas that can be placed."""

from __future__ import annotations

from controlplane.model import AntiAffinity, NodeGpus, NodeId, Taint, Toleration
from tests.independent.scenes import TIER, ZONE, engine, gpu, node, placement, scene, uuids, wanted

A2 = node("a", gpu("a", 0), gpu("a", 1))  # two replicas of 4 GiB on each GPU
B2 = node("b", gpu("b", 0), gpu("b", 1))
C2 = node("c", gpu("c", 0), gpu("c", 1))
PAIRS = wanted(3, gang=2, gpu_count=4)
TAINT = Taint("dedicated", "ml")
AB = [A2, B2]
APART_NODES, APART_GPUS = AntiAffinity(frozenset()), AntiAffinity(frozenset(), on_gpu=True)
FROM_GOLD = AntiAffinity(frozenset([TIER]))
CODE = wanted(9, deployment="code", labels=[TIER])
ALONE = wanted(9, deployment="code", allows_sharing=False)
ON_A0 = placement(CODE, 0, "a", 0)
SHY = wanted(9, deployment="code", anti_affinity=[FROM_GOLD])
CHAT = wanted(3, gpu_count=2)
SILENT = node("a", gpu("a", 0), is_ready=False)
BROKEN = node("a", gpu("a", 0, is_healthy=False))
TAINTED = node("a", gpu("a", 0), taints=[TAINT])
LOADED = engine(ON_A0, measured_gib=3)


PLACEABLE = {
    "four on one node of two GPUs": (scene(wanted(4), [A2]), 4),
    "one more than memory allows": (scene(wanted(4, need_gib=5), [A2]), 2),
    "what others use is not available": (scene(wanted(4), [node("a", gpu("a", 0, used_gib=1), gpu("a", 1))]), 3),
    "what is reserved is not available": (scene(wanted(4), [A2], [ON_A0], [CODE]), 3),
    "a stopping replica holds its memory": (
        scene(wanted(4), [A2], [placement(CODE, 0, "a", 0, is_stopping=True)], [CODE]),
        3,
    ),
    "a loaded engine counts once": (
        scene(wanted(4), [node("a", gpu("a", 0, used_gib=3), engines=[LOADED])], [ON_A0], [CODE]),
        1,
    ),
    "an engine that outgrew its reservation counts with what it uses": (
        scene(
            wanted(4), [node("a", gpu("a", 0, used_gib=5), engines=[engine(ON_A0, measured_gib=5)])], [ON_A0], [CODE]
        ),
        0,
    ),
    "an engine without a placement counts": (
        scene(wanted(4), [node("a", gpu("a", 0, used_gib=3), engines=[LOADED])], [], [CODE]),
        1,
    ),
    "an engine that is gone holds nothing": (
        scene(wanted(4), [node("a", gpu("a", 0), engines=[engine(ON_A0, is_gone=True)])], [], [CODE]),
        2,
    ),
    "alone on each GPU": (scene(wanted(4, allows_sharing=False), AB), 4),
    "alone on each GPU of one node": (scene(wanted(4, allows_sharing=False), [A2]), 2),
    "not beside one that is alone": (scene(wanted(4), [A2], [placement(ALONE, 0, "a", 0)], [ALONE]), 2),
    "alone, so not beside others": (scene(wanted(4, allows_sharing=False), [A2], [ON_A0], [CODE]), 1),
    "gangs": (scene(wanted(4, gang=2), AB), 4),
    "no gang over two nodes": (scene(wanted(1, gang=2), [node("a", gpu("a", 0)), node("b", gpu("b", 0))]), 0),
    "gangs that overlap": (scene(wanted(3, gang=2), [node("a", *(gpu("a", index) for index in range(3)))]), 3),
    "gang larger than any node": (scene(wanted(1, gang=3), AB), 0),
    "in the memory of hosts": (scene(wanted(4, gang=0), [node("a", host_gib=8), node("b", host_gib=12)]), 4),
    "a host with GPUs has memory too": (scene(wanted(3, gang=0), [node("a", gpu("a", 0), host_gib=8)]), 2),
    "what others use of a host": (scene(wanted(3, gang=0), [node("a", host_gib=8, host_used_gib=1)]), 1),
    "one GPU takes two": (scene(wanted(4, gpu_count=1), AB), 2),
    "two GPUs take four": (scene(wanted(4, gpu_count=2), AB), 4),
    "a host counts as one GPU": (
        scene(wanted(4, gang=0, gpu_count=1), [node("a", host_gib=8), node("b", host_gib=8)]),
        2,
    ),
    "not two on one GPU with a gpu_count of two": (scene(wanted(2, gpu_count=2), [node("a", gpu("a", 0))]), 1),
    "gangs count GPUs": (scene(wanted(4, gang=2, gpu_count=2), AB), 2),
    "with a gpu_count, gangs do not overlap": (
        scene(wanted(3, gang=2, gpu_count=4), [node("a", *(gpu("a", index) for index in range(3)))]),
        2,
    ),
    "a host is shared": (scene(wanted(2, gang=0, allows_sharing=False), [node("a", host_gib=8)]), 2),
    "allowed by index on every node": (scene(wanted(4, allowed_gpus=[NodeGpus(None, frozenset([1]))]), AB), 4),
    "allowed by UUID": (scene(wanted(4, allowed_gpus=[NodeGpus(None, uuids=frozenset(uuids("b", 0)))]), AB), 2),
    "allowed by index on one node": (scene(wanted(4, allowed_gpus=[NodeGpus(NodeId("a"), frozenset([0]))]), AB), 2),
    "all of one node allowed": (scene(wanted(4, gang=2, allowed_gpus=[NodeGpus(NodeId("a"))]), AB), 2),
    "a host that no entry means": (
        scene(wanted(1, gang=0, allowed_gpus=[NodeGpus(NodeId("b"))]), [node("a", host_gib=8)]),
        0,
    ),
    "labels that no node has": (scene(wanted(4, node_labels=[ZONE]), AB), 0),
    "labels that one node has": (
        scene(wanted(4, node_labels=[ZONE]), [A2, node("b", gpu("b", 0), labels=dict([ZONE]))]),
        2,
    ),
    "a taint": (scene(wanted(), [TAINTED]), 0),
    "a taint of another value": (
        scene(wanted(tolerations=[Toleration("dedicated", "x")]), [TAINTED]),
        0,
    ),
    "a taint that is tolerated": (
        scene(wanted(tolerations=[Toleration("dedicated")]), [TAINTED]),
        1,
    ),
    "every taint tolerated": (scene(wanted(tolerations=[Toleration("*")]), [TAINTED]), 1),
    "apart by node": (scene(wanted(4, anti_affinity=[APART_NODES]), AB), 2),
    "apart by GPU": (scene(wanted(4, anti_affinity=[APART_GPUS]), AB), 4),
    "apart from another": (scene(wanted(4, anti_affinity=[FROM_GOLD]), [A2, B2], [ON_A0], [CODE]), 4),
    "apart from another, nowhere else to go": (scene(wanted(1, anti_affinity=[FROM_GOLD]), [A2], [ON_A0], [CODE]), 0),
    "one that is to be apart from it": (scene(wanted(1, labels=[TIER]), [A2], [placement(SHY, 0, "a", 0)], [SHY]), 0),
    "a node that is not ready": (scene(wanted(4), [node("a", gpu("a", 0), is_ready=False), node("b", gpu("b", 0))]), 2),
    "a GPU that is not healthy": (scene(wanted(4), [node("a", gpu("a", 0), gpu("a", 1, is_healthy=False))]), 2),
    "two on one GPU if there are fewer than the gpu_count": (
        scene(wanted(2, gpu_count=3), [node("a", gpu("a", 0))]),
        2,
    ),
    "gangs that name the same GPUs in another order are on the same": (
        scene(PAIRS, [B2, C2], [placement(PAIRS, 0, "b", 0, 1), placement(PAIRS, 1, "b", 1, 0)]),
        1,
    ),
}
