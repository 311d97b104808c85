"""Says of every device what it comes to when replicas of one deployment are placed. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.model import Placement, Wanted
from controlplane.placement.board import StrategyFailed, Terms
from controlplane.placement.fit import Device, Slot, places_of
from controlplane.placement.place import open_board
from controlplane.placement.refusals import sentence
from controlplane.placement.strategies import Strategy


class Outcome(enum.Enum):
    """What a device comes to."""

    PLACED = enum.auto()  # at least one of the replicas goes there
    PASSED = enum.auto()  # one would fit, and others are better
    REFUSED = enum.auto()  # none fits


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a device as it is before any of the replicas is placed."""

    device: Device
    outcome: Outcome
    placed_count: int
    message: str  # empty if PLACED
    score: Terms  # the weightiest term first, smaller is better; empty if REFUSED


def verdicts(
    devices: Iterable[Device],
    wanted: Wanted,
    taken: Collection[Slot],
    *,
    indexes: Sequence[int],
    own: Collection[Placement],
    strategies: Mapping[str, Strategy],
) -> list[Verdict]:
    """Returns a verdict for each device that counts for a deployment, by node and index.

    devices: before its replicas are placed. taken: the slots that they get, one for each that has a place. For indexes
    and own see `place_on`. Returns none if the strategy fails or is unknown: then nothing can be placed, and every
    replica says why.
    """
    counts = Counter(place for slot in taken for place in places_of(slot))
    found = []
    try:
        board = open_board(devices, wanted, indexes, own=own, strategies=strategies)
        for device in board.devices:
            count = counts[device.place]
            fits = board.obstacle(device) is None
            if count:
                outcome, message = Outcome.PLACED, ""
            elif fits:
                outcome, message = Outcome.PASSED, _passed(wanted, device, taken)
            else:
                outcome, message = Outcome.REFUSED, sentence(wanted, board, device)
            found.append(Verdict(device, outcome, count, message, board.terms(device) if fits else ()))
    except (StrategyFailed, KeyError):
        return []
    return found


def _passed(wanted: Wanted, device: Device, taken: Collection[Slot]) -> str:
    if not taken:
        return f"{device.words} has room, and no replica needs it"
    if wanted.gpu_count and len({place for slot in taken for place in places_of(slot)}) >= wanted.gpu_count:
        return f"{device.words} has room; gpu_count is {wanted.gpu_count}, and others rank before it"
    return f"{device.words} has room; others rank before it"
