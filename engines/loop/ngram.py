"""Guesses that an output goes on as it, or its prompt, went on before: prompt lookup. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

_INDEXED = 4096  # n-grams of each length that are kept for a sequence; the ones seen longest ago are forgotten


class NGrams:
    """A proposer that looks for the latest earlier place where the last few ids stood, and says what followed there.

    Longer matches count first. What it keeps of a sequence grows with the sequence up to a bound, and goes with it.
    Source: Saxena 2023, prompt lookup decoding.
    """

    def __init__(self, *, longest: int = 4, shortest: int = 2, indexed: int = _INDEXED) -> None:
        """`longest`, `shortest`: ids that have to match."""
        assert 0 < shortest <= longest
        assert indexed > 0
        self._lengths = range(longest, shortest - 1, -1)
        self._indexed = indexed
        self._indexes: dict[str, _Index] = {}

    def propose(self, sequences: Sequence[tuple[str, Sequence[int]]], most: int) -> Sequence[Sequence[int]]:
        """Returns up to `most` next ids for each sequence, given as (name, all its ids)."""
        return [self._index_of(name).propose(ids, most) for name, ids in sequences]

    def forget(self, name: str) -> None:
        """Says that a sequence has ended."""
        self._indexes.pop(name, None)

    def _index_of(self, name: str) -> _Index:
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = _Index(self._lengths, self._indexed)
        return index


class _Index:
    """Where each n-gram of one sequence stood last, and was followed by something."""

    def __init__(self, lengths: Sequence[int], indexed: int) -> None:
        self._indexed = indexed
        self._count = 0  # ids whose n-grams, those that end with them, are known
        self._ends: list[tuple[int, dict[tuple[int, ...], int]]] = [(length, {}) for length in lengths]

    def propose(self, ids: Sequence[int], most: int) -> Sequence[int]:
        # Not those that end with the last id: nothing follows them yet.
        for end in range(max(self._count, len(ids) - 1 - self._indexed) + 1, len(ids)):
            for length, ends in self._ends:
                if end >= length:
                    self._remember(ends, tuple(ids[end - length : end]), end)
        self._count = len(ids) - 1
        for length, ends in self._ends:
            end = ends.get(tuple(ids[-length:]), 0) if len(ids) >= length else 0
            if end:
                return _going_on(ids, end, most)
        return ()

    def _remember(self, ends: dict[tuple[int, ...], int], ngram: tuple[int, ...], end: int) -> None:
        ends.pop(ngram, None)  # so that it stands last in the order of the dictionary
        ends[ngram] = end
        if len(ends) > self._indexed:
            del ends[next(iter(ends))]


def _going_on(ids: Sequence[int], end: int, most: int) -> Sequence[int]:
    guess = list(ids[end : end + most])
    period = len(ids) - end
    while len(guess) < most:  # what stood close before the end goes round and round
        guess.append(guess[-period])
    return guess
