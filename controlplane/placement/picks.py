"""Takes the best slot of a board for one replica after the other, without looking at all of them each time. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

from controlplane.model import NodeId
from controlplane.placement.board import Board, Key, Offer
from controlplane.placement.fit import Slot
from controlplane.placement.gpu_sets import GpuSet


class Anywhere:
    """Slots of the whole fleet.

    As many replicas are placed as fit: that GPUs with room are left over, of which too few are different ones, is
    accepted only while there is room for all of them nevertheless.
    """

    def __init__(self, board: Board, count: int) -> None:
        self._board = board
        self._may_waste = board.gpus_per_replica > 1
        self._spare = max(0, sum(map(board.capacity, board.nodes)) - count) if self._may_waste else 0
        self._offers: dict[NodeId, tuple[Offer, int]] = {}  # of every node the best, and what was to spare then
        self._heap: list[tuple[Key, NodeId]] = []  # those of `_offers`, and outdated ones
        for node in board.nodes:
            self._look(node)

    def take(self, name: str) -> Slot | None:
        """Puts a replica on the best slot; None if there is no room."""
        while self._heap:
            key, node = self._heap[0]
            offer, spare = self._offers.get(node, (None, 0))
            if offer is None or offer.key != key:
                heapq.heappop(self._heap)
            elif spare != self._spare:  # less is to spare since, so that it may be a worse one by now
                heapq.heappop(self._heap)
                self._look(node)
            else:
                self._put(offer.slot, name)
                return offer.slot
        return None

    def _put(self, slot: Slot, name: str) -> None:
        node = slot[0]
        before = self._board.capacity(node) if self._may_waste else 0
        self._board.put(slot, name)
        if self._may_waste:
            self._spare -= before - 1 - self._board.capacity(node)
        self._look(node)

    def _look(self, node: NodeId) -> None:
        best = self._board.best(node, self._spare)
        if best is None:
            self._offers.pop(node, None)
        else:
            self._offers[node] = best, self._spare
            heapq.heappush(self._heap, (best.key, node))


class Within:
    """Slots of a set: first that with the fewest replicas of the deployment, of those the best."""

    def __init__(self, board: Board, chosen: GpuSet, counts: Mapping[Slot, int]) -> None:
        self._board, self._limit = board, chosen.limit
        self._counts = Counter(counts)
        self._on: dict[NodeId, list[Slot]] = {}
        self._keys: dict[Slot, tuple[int, Key]] = {}
        self._heap: list[tuple[tuple[int, Key], Slot]] = []  # by those of `_keys`, and outdated ones
        for slot in chosen.slots:
            self._on.setdefault(slot[0], []).append(slot)
            self._look(slot)

    def take(self, name: str) -> Slot | None:
        """Puts a replica on the best slot; None if there is no room."""
        while self._heap:
            key, slot = heapq.heappop(self._heap)
            if self._keys.get(slot) == key:
                self._counts[slot] += 1
                self._board.put(slot, name)
                for each in self._on[slot[0]]:  # those beside it rank anew
                    self._look(each)
                return slot
        return None

    def _look(self, slot: Slot) -> None:
        if self._counts[slot] < self._limit and self._board.room(slot):
            self._keys[slot] = self._counts[slot], self._board.offer(slot).key
            heapq.heappush(self._heap, (self._keys[slot], slot))
        else:
            self._keys.pop(slot, None)
