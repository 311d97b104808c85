"""Counts of the ids of sequences, kept from step to step so that a step costs what is new in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.batching.batch import Draw

MOST_IDS = 1 << 22  # over all sequences that are remembered, about 100 bytes each
NEAR = 32  # ids that a sequence may take back in one step: guesses that did not hold


class Counts(NamedTuple):
    """How often ids stand in a sequence. Valid until the next call."""

    ids: NDArray[np.int64]  # each at most once
    total: NDArray[np.int32]  # in prompt and output; 0 for one that was taken back
    output: NDArray[np.int32]


class Histories:
    """The counts of the sequences that were asked for last.

    What is remembered is only ever a shortcut: it is compared with the ids of the draw, so a sequence that goes on
    elsewhere, that is computed again or whose guesses did not hold is counted rightly, and two that look alike share.
    """

    def __init__(self, most_ids: int = MOST_IDS) -> None:
        self._most_ids = most_ids
        self._known: OrderedDict[tuple[int, int, int], _History] = OrderedDict()
        self._id_count = 0

    def counts(self, draw: Draw) -> Counts:
        """Returns the counts of `draw.ids`."""
        key = (draw.sampling.seed, draw.choice, draw.prompt_count)
        ids = list(draw.ids)
        history = self._known.pop(key, None)
        self._id_count -= 0 if history is None else len(history.ids)
        if history is None or not history.follow(ids):
            history = _History(ids, draw.prompt_count)
        self._known[key] = history
        self._id_count += len(ids)
        while self._id_count > self._most_ids and len(self._known) > 1:
            self._id_count -= len(self._known.popitem(last=False)[1].ids)
        return history.counts()


class _History:
    """The counts of one sequence."""

    def __init__(self, ids: list[int], prompt_count: int) -> None:
        self.ids = ids
        self._prompt_count = prompt_count
        unique, total = np.unique(np.array(ids, dtype=np.int64), return_counts=True)
        self._unique = unique
        self._counts = np.zeros((2, len(unique)), dtype=np.int32)
        self._counts[0] = total
        output, times = np.unique(np.array(ids[prompt_count:], dtype=np.int64), return_counts=True)
        self._counts[1, np.searchsorted(unique, output)] = times
        self._places = dict(zip(unique.tolist(), range(len(unique)), strict=True))

    def follow(self, ids: list[int]) -> bool:
        """Counts `ids` in place of what was counted; returns whether the two differ only at their ends."""
        shared = _shared(self.ids, ids)
        if shared is None or max(len(ids), len(self.ids)) - shared > NEAR:
            return False
        for place in range(shared, len(self.ids)):
            self._add(self.ids[place], place, -1)
        for place in range(shared, len(ids)):
            self._add(ids[place], place, 1)
        self.ids = ids
        return True

    def counts(self) -> Counts:
        size = len(self._places)
        return Counts(self._unique[:size], self._counts[0, :size], self._counts[1, :size])

    def _add(self, token: int, place: int, times: int) -> None:
        index = self._places.setdefault(token, len(self._places))
        if index == len(self._unique):
            self._unique = np.concatenate([self._unique, np.zeros(index + NEAR, dtype=np.int64)])
            self._counts = np.concatenate([self._counts, np.zeros((2, index + NEAR), dtype=np.int32)], axis=1)
        self._unique[index] = token
        self._counts[0, index] += times
        if place >= self._prompt_count:
            self._counts[1, index] += times


def _shared(before: Sequence[int], after: Sequence[int]) -> int | None:
    """Returns how far two sequences are the same; None if that is not nearly the whole of the shorter."""
    size = min(len(before), len(after))
    place = max(0, size - NEAR)
    # Comparing lists is fast where they hold the very same numbers, as those of one sequence do from step to step.
    if before[:place] != after[:place]:
        return None
    while place < size and before[place] == after[place]:
        place += 1
    return place
