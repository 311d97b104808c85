"""How places on which a replica fits are ranked. Pure, and all that an extension needs to know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(slots=True)  # not frozen, which would take five times as long to make, and a fleet has thousands of them
class Candidate:
    """A GPU, or the memory of a host, on which a replica fits: what a strategy may see of it. Made for one call."""

    node: str
    gpu: str  # empty: the memory of a host
    index: int
    total_bytes: int
    available_bytes: int  # total - foreign - held
    utilization_fraction: float  # with what was placed and is not reported yet
    utilization_band: int  # in steps of 5 points above the least utilized on which the replica fits
    replica_count: int  # of anybody
    node_replica_count: int
    own_count: int  # of this deployment
    own_node_count: int


# Returns named terms, the weightiest first; smaller is better. Of equals the first by node and index is taken. Of a
# replica that has several GPUs the worst of them counts.
Strategy = Callable[[Candidate], Sequence[tuple[str, float]]]


def idle_first(candidate: Candidate) -> Sequence[tuple[str, float]]:
    """Ranks the least utilized first; then by memory in use, replicas on it, replicas on its node."""
    return (
        ("utilization_band", candidate.utilization_band),
        ("held_fraction", 1 - candidate.available_bytes / (candidate.total_bytes or 1)),  # by us or by others
        ("replicas", candidate.replica_count),
        ("node_replicas", candidate.node_replica_count),
    )


def spread(candidate: Candidate) -> Sequence[tuple[str, float]]:
    """Ranks first where the fewest of the deployment are, on the node and then on the GPU; then as `idle_first`."""
    return (
        ("own_node_replicas", candidate.own_node_count),
        ("own_replicas", candidate.own_count),
        *idle_first(candidate),
    )


def binpack(candidate: Candidate) -> Sequence[tuple[str, float]]:
    """Ranks the fullest first, and of those the one on the fullest node, so that others stay empty."""
    return (
        ("available_bytes", candidate.available_bytes),
        ("node_replicas_negated", -candidate.node_replica_count),
        ("utilization_band", candidate.utilization_band),
    )


def memory_first(candidate: Candidate) -> Sequence[tuple[str, float]]:
    """Ranks the one with the most memory available first; then by utilization, replicas on it, replicas on its node."""
    return (
        ("available_bytes_negated", -candidate.available_bytes),
        ("utilization_band", candidate.utilization_band),
        ("replicas", candidate.replica_count),
        ("node_replicas", candidate.node_replica_count),
    )


STRATEGIES: Mapping[str, Strategy] = {
    "idle_first": idle_first,
    "spread": spread,
    "binpack": binpack,
    "memory_first": memory_first,
}
DEFAULT_STRATEGY = "idle_first"


def canonical_strategy(name: str, known: Collection[str] = STRATEGIES) -> str | None:
    """Returns the one of the known names that is meant, in Xinference's spellings too; None if there is none."""
    plain = name.lower().replace("-", "_").removesuffix("_launch_strategy").replace("_", "")
    return next((each for each in known if each.replace("_", "") == plain), None)
