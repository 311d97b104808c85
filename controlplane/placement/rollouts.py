"""Which replicas are replaced because the deployment wants them to run something else, and how many at a time. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from controlplane.model import Placement, Unplaced, Wanted
from controlplane.placement.fit import Place
from controlplane.placement.moves import Move, ReplicaKey, refusal
from controlplane.placement.standing import Leaving, Nodes, newest, reports, runs_what_is_wanted, serves


def replacements(
    wanted: Wanted,
    standing: Sequence[Placement],
    nodes: Nodes,
    leaving: Leaving,
    refused: Mapping[ReplicaKey, Collection[Place]],
) -> Iterator[Move | Unplaced]:
    """Yields the replicas of a deployment that are to be replaced now, as moves to where they may well be already.

    Of those that wait for others it says so.

    standing: its placements that are not stopping. leaving: nodes that are drained or lost. refused: where a replica
    was refused lately. What does not serve is replaced at once; of what serves, so many at a time as the deployment
    allows. What nothing is known of waits, and what has to move anyway is replaced by that.
    """
    if all(runs_what_is_wanted(each, wanted) for each in standing):
        return
    current = newest(wanted, standing)
    outdated = [
        each
        for each in current
        if not runs_what_is_wanted(each, wanted)
        and each.node not in leaving
        and reports(each.node, nodes)
        and refusal(each, nodes) is None
    ]
    serving = [each for each in outdated if serves(each, nodes)]
    idle = [each for each in outdated if not serves(each, nodes)]
    for each in idle:
        grace_s = wanted.rollout_grace_s
        yield _replacement(wanted, each, refused, stop_grace_s=grace_s, unserved_grace_s=grace_s)
    fresh = {each.index for each in current if runs_what_is_wanted(each, wanted)}
    # What stands on a node that does not report has been replaced, and waits for it.
    replaced = (each for each in standing if not runs_what_is_wanted(each, wanted) and reports(each.node, nodes))
    surge_count = len({each.index for each in replaced} & fresh)
    available_count = len({each.index for each in standing if serves(each, nodes)})
    room = max(0, wanted.max_surge - surge_count)
    budget = max(0, wanted.max_unavailable - max(0, wanted.replica_count - available_count))
    if wanted.max_surge == 0:
        for each in serving[:budget]:
            yield _replacement(wanted, each, refused, stop_grace_s=wanted.rollout_grace_s, goes_first=True)
        for each in serving[budget:]:
            missing_count = wanted.replica_count - available_count + min(budget, len(serving))
            why = f"it is replaced when more of the {wanted.replica_count} replicas serve: {missing_count} do not"
            told = f"{why}, as many as rollout.max_unavailable allows"
            yield Unplaced(wanted.deployment, each.index, told, waits_its_turn=True)
        return
    for number, each in enumerate(serving[:room]):
        may_go = number < budget
        yield _replacement(wanted, each, refused, unserved_grace_s=wanted.rollout_grace_s if may_go else None)


def _replacement(
    wanted: Wanted,
    placement: Placement,
    refused: Mapping[ReplicaKey, Collection[Place]],
    *,
    stop_grace_s: float | None = None,
    unserved_grace_s: float | None = None,
    goes_first: bool = False,
) -> Move:
    return Move(
        wanted,
        (placement,),
        frozenset(refused.get((wanted.uid, placement.index), ())),
        f"what is to replace it has no room beside generation {placement.spec_generation or 1}",
        stop_grace_s,
        unserved_grace_s,
        goes_first=goes_first,
        is_replaced=True,
    )
