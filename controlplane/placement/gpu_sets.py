"""Chooses the set of GPUs for a deployment that is to use a certain number of them. Pure."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.placement.board import Board
from controlplane.placement.fit import Place


@dataclass(frozen=True, slots=True)
class GpuSet:
    """Places for the replicas of a deployment, and the most replicas of it on each."""

    places: frozenset[Place]
    limit: int
    missing_count: int = 0  # places that the set lacks; one replica has to wait for each


def choose_gpu_set(board: Board, counts: Mapping[Place, int], new_count: int, gpu_count: int) -> GpuSet:
    """Chooses `gpu_count` places, those of `counts` among them, on which `new_count` more replicas go.

    counts: replicas of the deployment that stand, by place. Of the sets on which all fit it takes one on which the
    counts come out as equal as can be, and of those the one that ranks best, place by place. If all fit on none, it
    takes the set on which most fit; if there are fewer usable places than asked for, all of them, each with its share.
    """
    search = _Search(board, counts, new_count, gpu_count)
    even = search.most_even()
    if even is not None:
        low, high = even
        return search.complete(low, high, new_count)
    if search.has_enough_places():
        return search.complete(1, search.total, search.most(1, search.total))
    usable = frozenset({*counts, *search.candidates})
    return GpuSet(usable, -(-search.total // search.size), search.size - len(usable))


class _Search:
    """One choice. A level (low, high) asks that every place ends with at least `low` and at most `high` replicas."""

    def __init__(self, board: Board, counts: Mapping[Place, int], new_count: int, gpu_count: int) -> None:
        self._board, self._counts, self._new_count = board, counts, new_count
        self.total = sum(counts.values()) + new_count
        self.size = max(len(counts), min(gpu_count, len(counts) + new_count))  # what stands is not moved
        self.candidates = {place: room for place, room in board.rooms.items() if room > 0 and place not in counts}
        self._pick_count = self.size - len(counts)

    def has_enough_places(self) -> bool:
        """Tells whether there are as many places with room as asked for."""
        return len(self.candidates) >= self._pick_count

    def most_even(self) -> tuple[int, int] | None:
        """Returns the narrowest level at which all fit, None if they fit at none."""
        if not self._holds(1, self.total):
            return None
        spreads = range(self.total + 1)  # a level that holds still does when it gets wider
        found = bisect_left(spreads, True, key=lambda spread: self._level(spread) is not None)
        return self._level(found)

    def most(self, low: int, high: int) -> int:
        """Returns how many more replicas the best set takes at a level."""
        standing = sum(self._standing_room(place, high) for place in self._counts)
        return standing + sum(heapq.nlargest(self._pick_count, self._rooms(low, high).values()))

    def complete(self, low: int, high: int, wanted_count: int) -> GpuSet:
        """Adds the best ranked candidates, one by one, each such that the set can still be completed."""
        board = self._board.copy()  # each pick changes how the other places of its node rank, and nothing else here
        rooms = dict(self._rooms(low, high))
        lack = wanted_count - sum(self._standing_room(place, high) for place in self._counts)
        picked: list[Place] = []
        for left in range(self._pick_count, 0, -1):
            largest = heapq.nlargest(left, rooms.values())
            # Taking a place in the stead of the smallest of the largest may cost no more than there is to spare.
            least = largest[-1] - (sum(largest) - lack)
            best = min((place for place, room in rooms.items() if room >= least), key=board.rank)
            board.crowd(best[0])
            lack -= rooms.pop(best)
            picked.append(best)
        return GpuSet(frozenset({*self._counts, *picked}), high)

    def _level(self, spread: int) -> tuple[int, int] | None:
        middle = self.total // max(1, self.size)
        lows = range(middle, max(0, middle - spread - 1), -1)
        return next(((low, low + spread) for low in lows if self._holds(low, low + spread)), None)

    def _holds(self, low: int, high: int) -> bool:
        if any(count > high or low - count > self._standing_room(place, high) for place, count in self._counts.items()):
            return False
        least = sum(max(0, low - count) for count in self._counts.values()) + self._pick_count * low
        has_places = len(self._rooms(low, high)) >= self._pick_count
        return has_places and least <= self._new_count <= self.most(low, high)

    def _rooms(self, low: int, high: int) -> Mapping[Place, int]:
        return {place: min(room, high) for place, room in self.candidates.items() if room >= low}

    def _standing_room(self, place: Place, high: int) -> int:
        return min(self._board.rooms.get(place, 0), max(0, high - self._counts[place]))
