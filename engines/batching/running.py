"""Decides who keeps blocks when there are too few."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator

from engines.batching.blocks import BlockPool
from engines.batching.prefixes import Prefixes
from engines.batching.sequence import Sequence


class Running:
    """The sequences that may hold blocks, by rank: a higher priority first, then the older.

    Whoever needs a block when none is free takes it from the last in rank. So the first always goes on; and since
    waiting raises the priority with which a sequence joins, each comes to be the first if it lasts long enough.
    """

    def __init__(self, pool: BlockPool, prefixes: Prefixes, put_out: Callable[[Sequence], None]) -> None:
        """`put_out` is called with a sequence that has lost its blocks, and does not run any more."""
        self._pool = pool
        self._prefixes = prefixes
        self._put_out = put_out
        self._ranked: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._ranked)

    def __iter__(self) -> Iterator[Sequence]:
        """Goes by rank. On the way the last ones may be put out; they do not come then."""
        return iter(self._ranked)

    @property
    def reserved_count(self) -> int:
        """Free blocks that those that run are going to take for prompts."""
        return sum(sequence.reserved_count for sequence in self._ranked)

    def join(self, sequence: Sequence, reserved_count: int) -> None:
        """Lets a sequence run, which is going to take so many blocks before it decodes."""
        sequence.reserved_count = reserved_count
        bisect.insort(self._ranked, sequence, key=_rank)

    def leave(self, sequence: Sequence) -> None:
        """Ends a sequence's run, and gives up its blocks."""
        self._ranked.remove(sequence)
        self._prefixes.withdraw(sequence)
        self._pool.release(sequence.lose_blocks())

    def room(self, sequence: Sequence, end: int) -> int:
        """Takes blocks for its tokens before `end`, or for as many as there are blocks; returns the end of those.

        If there is not one, the last in rank are put out. It may be the last itself: then 0 is returned.
        """
        pool, size = self._pool, self._pool.block_size
        while not pool.free_count and len(sequence.blocks) * size <= sequence.scheduled_count:
            last = self._ranked[-1]
            self.leave(last)
            self._put_out(last)
            if last is sequence:
                return 0
        while pool.free_count and len(sequence.blocks) * size < end:
            sequence.blocks.append(pool.allocate())
            sequence.reserved_count = max(0, sequence.reserved_count - 1)
        return min(end, len(sequence.blocks) * size)


def _rank(sequence: Sequence) -> tuple[int, int]:
    return -sequence.aged_priority, sequence.number
