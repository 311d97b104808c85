"""Chooses places for replicas of one deployment. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.model import GpuUuid, NodeId, Placement, Unplaced, Wanted
from controlplane.placement.board import Board, StrategyFailed
from controlplane.placement.fit import Device, Place, Slot
from controlplane.placement.gpu_sets import GpuSet, choose_gpu_set
from controlplane.placement.picks import Anywhere, Within
from controlplane.placement.refusals import refusal
from controlplane.placement.strategies import Strategy


@dataclass(frozen=True, slots=True)
class Proposal:
    """A place for a replica."""

    deployment: str
    index: int
    node: NodeId
    gpus: tuple[GpuUuid, ...]  # in the order of their indexes; empty: in the memory of the host
    reserved_bytes: int  # on each of them


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
    strategies: Mapping[str, Strategy],
    avoid: Collection[Place] = (),
) -> Places:
    """Chooses a place for each replica of a deployment that `indexes` names, the best ranked place first.

    devices: as they stand, by node. own: the placements of the deployment. strategies: those that exist, by name.
    avoid: places that are not to be taken.
    """
    try:
        board = open_board(devices, wanted, indexes, own=list(own), strategies=strategies, avoid=avoid)
        return _fill(board, wanted, indexes)
    except StrategyFailed as error:
        reason = f'the strategy "{wanted.strategy}" failed, {error}: mend it, or create the deployment with another'
    except KeyError as error:
        if error.args != (wanted.strategy,):
            raise
        reason = f'the strategy "{wanted.strategy}" is unknown: use one of {", ".join(strategies)}'
    return Places((), tuple(Unplaced(wanted.deployment, index, reason) for index in indexes))


def open_board(
    devices: Iterable[Device],
    wanted: Wanted,
    indexes: Sequence[int],
    *,
    own: Collection[Placement],
    strategies: Mapping[str, Strategy],
    avoid: Collection[Place] = (),
) -> Board:
    """Returns the devices as they rank before any of these replicas is placed.

    Raises KeyError if there is no such strategy, and StrategyFailed.
    """
    on_hand = list(devices)
    return Board(
        wanted,
        on_hand,
        strategies[wanted.strategy],
        gpus_per_replica=_gpus_per_replica(wanted, on_hand),
        own=_counts(own, indexes, on_hand),
        avoid=avoid,
        moving={each.replica_uid for each in own if not each.is_stopping and each.index in indexes},
    )


def _counts(own: Iterable[Placement], indexes: Collection[int], devices: Iterable[Device]) -> Counter[Slot]:
    """Returns how many replicas of a deployment stay on each slot when those that `indexes` names are placed anew."""
    moving = frozenset(indexes)
    staying = [each for each in own if not each.is_stopping and each.index not in moving]
    # The same GPUs are the same slot, in whatever order they were given: indexes may change with a boot.
    has_gangs = any(len(each.gpus) > 1 for each in staying)
    order = {each.gpu: each.index for each in devices if each.gpu is not None} if has_gangs else {}
    return Counter((each.node, tuple(sorted(each.gpus, key=lambda gpu: order.get(gpu, 0)))) for each in staying)


def _gpus_per_replica(wanted: Wanted, devices: Iterable[Device]) -> int:
    """Returns how many GPUs one replica has; 0 stands for the memory of a host."""
    if wanted.gpus_per_replica is not None:
        return wanted.gpus_per_replica
    # Stored before it was settled at creation: hosts are for fleets in which no GPU can be used.
    return int(any(each.gpu is not None and each.obstacle is None for each in devices))


def _fill(board: Board, wanted: Wanted, indexes: Sequence[int]) -> Places:
    chosen: GpuSet | None = None
    if wanted.gpu_count and indexes:
        slot_count = wanted.gpu_count // max(1, board.gpus_per_replica)
        chosen = choose_gpu_set(board, board.own, len(indexes), slot_count)
        if chosen.missing_count and chosen.slots and wanted.replica_count < slot_count:
            # All of them are for as many replicas: fewer go where they can, as evenly as that allows.
            chosen = choose_gpu_set(board, board.own, len(indexes), len(chosen.slots))
    waiting_count = 0 if chosen is None else chosen.missing_count
    going = indexes[: len(indexes) - waiting_count]
    picks = Anywhere(board, len(going)) if chosen is None else Within(board, chosen, board.own)
    proposals: list[Proposal] = []
    for index in going:
        slot = picks.take(f"{wanted.deployment}-{index}")
        if slot is None:
            break  # all need the same: what holds for this one holds for those after it
        node, gpus = slot
        proposals.append(Proposal(wanted.deployment, index, node, gpus, wanted.need.total_bytes))
    left = indexes[len(proposals) :]
    return Places(tuple(proposals), refusal(wanted, left, board, chosen) if left else ())
