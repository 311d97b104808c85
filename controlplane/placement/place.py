"""Chooses places for replicas of one deployment. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.model import GpuUuid, NodeId, Placement, Unplaced, Wanted
from controlplane.placement.board import Board
from controlplane.placement.fit import Device, Obstacle, Place
from controlplane.placement.gpu_sets import GpuSet, choose_gpu_set
from controlplane.placement.refusals import refusal
from controlplane.placement.strategies import STRATEGIES


@dataclass(frozen=True, slots=True)
class Proposal:
    """A place for a replica."""

    deployment: str
    index: int
    node: NodeId
    gpus: tuple[GpuUuid, ...]  # empty: in the memory of the host
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where replicas can go, and which have no place. Whoever wants all or nothing looks at `unplaced` first."""

    proposals: tuple[Proposal, ...]
    unplaced: tuple[Unplaced, ...]


def place_on(
    devices: Iterable[Device],
    wanted: Wanted,
    indexes: Sequence[int],
    *,
    own: Iterable[Placement],
    avoid: Collection[Place] = (),
) -> Places:
    """Chooses a place for each replica of a deployment that `indexes` names, the best ranked place first.

    devices: as they stand. own: the placements of the deployment. avoid: places that are not to be taken.
    """
    strategy = STRATEGIES.get(wanted.strategy)
    if strategy is None:
        reason = f'the strategy "{wanted.strategy}" is unknown: use {", ".join(STRATEGIES)}'
        return Places((), tuple(Unplaced(wanted.deployment, index, reason) for index in indexes))
    standing = [each for each in own if not each.is_stopping]
    board = Board(wanted, _open(devices, avoid, keeps_to_gpus=wanted.is_for_gpus), strategy)
    counts = _counts(indexes, standing)
    allowed = choose_gpu_set(board, counts, len(indexes), wanted.gpu_count) if wanted.gpu_count and indexes else None
    proposals = []
    waiting_count = 0 if allowed is None else allowed.missing_count
    for index in indexes[: len(indexes) - waiting_count]:
        best = _best(board, counts, allowed)
        if best is None:
            break  # all need the same: what holds for this one holds for those after it
        counts[best] += 1
        board.put(best, f"{wanted.deployment}-{index}")
        node, gpu = best
        gpus = () if gpu is None else (gpu,)
        proposals.append(Proposal(wanted.deployment, index, node, gpus, wanted.need.total_bytes))
    left = indexes[len(proposals) :]
    return Places(tuple(proposals), refusal(wanted, left, list(board.devices), allowed) if left else ())


def _open(devices: Iterable[Device], avoid: Collection[Place], *, keeps_to_gpus: bool) -> Iterator[Device]:
    for each in devices:
        if each.place in avoid:
            yield each.barred(Obstacle.AVOIDED)
        elif keeps_to_gpus and each.gpu is None:
            yield each.barred(Obstacle.NEEDS_GPU)
        else:
            yield each


def _counts(indexes: Collection[int], standing: Iterable[Placement]) -> Counter[Place]:
    """Returns how many replicas of the deployment stay on each place."""
    moving = frozenset(indexes)
    staying = (each for each in standing if each.index not in moving)
    return Counter((each.node, gpu) for each in staying for gpu in each.gpus or (None,))


def _best(board: Board, counts: Mapping[Place, int], allowed: GpuSet | None) -> Place | None:
    fits = (place for place, room in board.rooms.items() if room > 0)
    if allowed is None:
        return min(fits, key=board.rank, default=None)
    among = (place for place in fits if place in allowed.places and counts[place] < allowed.limit)
    return min(among, key=lambda place: (counts[place], board.rank(place)), default=None)
