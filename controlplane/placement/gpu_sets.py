"""Chooses the set of GPUs for a deployment that is to use a certain number of them. Pure."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.model import NodeId
from controlplane.placement.board import Board, Key
from controlplane.placement.fit import Slot


@dataclass(frozen=True, slots=True)
class GpuSet:
    """Slots for the replicas of a deployment, and the most replicas of it on each."""

    slots: frozenset[Slot]
    limit: int
    missing_count: int = 0  # slots that the set lacks; one replica has to wait for each


def choose_gpu_set(board: Board, counts: Mapping[Slot, int], new_count: int, slot_count: int) -> GpuSet:
    """Chooses `slot_count` slots, those of `counts` among them, on which `new_count` more replicas go.

    counts: replicas of the deployment that stand, by slot. Of the sets on which all fit it takes one on which the
    counts come out as equal as can be, and of those the one that ranks best, slot by slot. If all fit on none, it takes
    the set on which most fit; if there are fewer usable slots than asked for, all of them, each with its share.
    """
    total = sum(counts.values()) + new_count
    # GPUs are put together by how much they have room for. What is beyond an even share counts only if that is too
    # little, so that otherwise NVLink and rank decide.
    share = -(-total // max(1, min(slot_count, total)))
    search = _Search(board, counts, new_count, slot_count, board.slots(share, counts))
    even = search.most_even()
    if even is None or even[1] > share:
        search = _Search(board, counts, new_count, slot_count, board.slots(total, counts))
        even = search.most_even()
    if even is not None:
        low, high = even
        return search.complete(low, high, new_count)
    if search.has_enough_slots():
        return search.complete(1, search.total, search.most(1, search.total))
    usable = frozenset({*counts, *search.candidates})
    return GpuSet(usable, -(-search.total // search.size), search.size - len(usable))


class _Search:
    """One choice. A level (low, high) asks that every slot ends with at least `low` and at most `high` replicas."""

    def __init__(
        self,
        board: Board,
        counts: Mapping[Slot, int],
        new_count: int,
        slot_count: int,
        candidates: Mapping[Slot, int],
    ) -> None:
        self._board, self._counts, self._new_count = board, counts, new_count
        self.total = sum(counts.values()) + new_count
        self.size = max(len(counts), min(slot_count, len(counts) + new_count))  # what stands is not moved
        self.candidates = candidates  # with their rooms
        self._pick_count = self.size - len(counts)

    def has_enough_slots(self) -> bool:
        """Tells whether there are as many slots with room as asked for."""
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
        standing = sum(self._standing_room(slot, high) for slot in self._counts)
        return standing + sum(heapq.nlargest(self._pick_count, self._rooms(low, high).values()))

    def complete(self, low: int, high: int, wanted_count: int) -> GpuSet:
        """Adds the best ranked candidates, one by one, each such that the set can still be completed."""
        lack = wanted_count - sum(self._standing_room(slot, high) for slot in self._counts)
        draw = _Draw(self._board.copy(), self._rooms(low, high))
        picked = []
        for left in range(self._pick_count, 0, -1):
            slot, room = draw.take(left, lack)
            lack -= room
            picked.append(slot)
        return GpuSet(frozenset({*self._counts, *picked}), high)

    def _level(self, spread: int) -> tuple[int, int] | None:
        middle = self.total // max(1, self.size)
        lows = range(middle, max(0, middle - spread - 1), -1)
        return next(((low, low + spread) for low in lows if self._holds(low, low + spread)), None)

    def _holds(self, low: int, high: int) -> bool:
        if any(count > high or low - count > self._standing_room(slot, high) for slot, count in self._counts.items()):
            return False
        least = sum(max(0, low - count) for count in self._counts.values()) + self._pick_count * low
        has_slots = len(self._rooms(low, high)) >= self._pick_count
        return has_slots and least <= self._new_count <= self.most(low, high)

    def _rooms(self, low: int, high: int) -> Mapping[Slot, int]:
        return {slot: min(room, high) for slot, room in self.candidates.items() if room >= low}

    def _standing_room(self, slot: Slot, high: int) -> int:
        return min(self._board.room(slot), max(0, high - self._counts[slot]))


class _Draw:
    """Slots from which one after the other is taken."""

    def __init__(self, board: Board, rooms: Mapping[Slot, int]) -> None:
        self._board, self._rooms = board, dict(rooms)
        self._counts = Counter(rooms.values())  # slots by room: there are few different ones
        self._on: dict[NodeId, list[Slot]] = {}
        self._keys: dict[Slot, Key] = {}
        self._heaps: dict[int, list[tuple[Key, Slot]]] = {room: [] for room in self._counts}
        for slot, room in rooms.items():
            self._on.setdefault(slot[0], []).append(slot)
            self._keys[slot] = board.offer(slot).key
            self._heaps[room].append((self._keys[slot], slot))
        for heap in self._heaps.values():
            heapq.heapify(heap)

    def take(self, left: int, lack: int) -> tuple[Slot, int]:
        """Takes the best slot after which the largest `left - 1` others still have the room that is lacking then."""
        total, smallest = self._largest(left)
        # Taking a slot in the stead of the smallest of the largest may cost no more than there is to spare.
        least = smallest - (total - lack)
        tops = [self._top(room) for room, count in self._counts.items() if count and room >= least]
        _, slot = min(tops)
        room = self._rooms.pop(slot)
        self._counts[room] -= 1
        self._on[slot[0]].remove(slot)
        # Each pick changes how the other slots of its node rank, and nothing else here.
        if self._on[slot[0]] and self._board.room(slot):
            self._board.put(slot, "")
            for other in self._on[slot[0]]:
                self._keys[other] = self._board.offer(other).key
                heapq.heappush(self._heaps[self._rooms[other]], (self._keys[other], other))
        return slot, room

    def _largest(self, count: int) -> tuple[int, int]:
        """Returns the sum of the largest rooms, and the smallest of them."""
        total = 0
        for room in sorted(self._counts, reverse=True):
            here = min(count, self._counts[room])
            total, count = total + here * room, count - here
            if count == 0:
                return total, room
        raise AssertionError("there are as many slots as are to be taken")

    def _top(self, room: int) -> tuple[Key, Slot]:
        heap = self._heaps[room]
        while heap[0][1] not in self._rooms or self._keys[heap[0][1]] != heap[0][0]:
            heapq.heappop(heap)
        return heap[0]
