"""Counts KV blocks: who references each, and what it is known to hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """Hands out blocks by number. Free and used blocks add up to the total after any history.

    A block is used while somebody references it, and free otherwise. A free block may still hold a prefix that
    somebody could want again; such blocks are given to others last, the one unused for longest first.
    """

    def __init__(self, total: int, block_size: int) -> None:
        assert total > 0
        assert block_size > 0
        self.total = total
        self.block_size = block_size
        self._blank = list(range(total - 1, -1, -1))  # free, hold nothing known; the one freed last is taken first
        self._cached: OrderedDict[int, None] = (
            OrderedDict()
        )  # free, hold what `_hash_of` says; unused for longest first
        self._reference_counts = [0] * total
        self._hash_of: list[bytes | None] = [None] * total
        self._block_of: dict[bytes, int] = {}

    @property
    def free_count(self) -> int:
        """Blocks that nobody references. May be read from any thread."""
        return len(self._blank) + len(self._cached)

    @property
    def used_count(self) -> int:
        """Blocks that somebody references, counted one by one."""
        return self.total - self._reference_counts.count(0)

    def blocks_for(self, token_count: int) -> int:
        """Returns how many blocks hold the keys and values of so many tokens."""
        return -(-token_count // self.block_size)

    def allocate(self) -> int:
        """Takes a block for the caller to write; it must have made sure that one is free."""
        assert self.free_count, "no block is free"
        if self._blank:
            block = self._blank.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            self._forget(block)
        self._reference_counts[block] = 1
        return block

    def release(self, blocks: Sequence[int]) -> None:
        """Gives up one reference to each; the last ones are the first to be given to others."""
        for block in reversed(blocks):  # a prefix is found from its beginning: without that, the rest is of no use
            assert self._reference_counts[block] > 0, f"block {block} is released twice"
            self._reference_counts[block] -= 1
            if self._reference_counts[block] == 0:
                if self._hash_of[block] is None:
                    self._blank.append(block)
                else:
                    self._cached[block] = None

    # What blocks hold.

    def register(self, block: int, content: bytes) -> None:
        """Says what a full block holds, which nobody will write any more. If another one holds the same, that stays."""
        assert self._reference_counts[block] > 0
        if content not in self._block_of:
            self._block_of[content] = block
            self._hash_of[block] = content

    def holds(self, content: bytes) -> bool:
        """Tells whether some block holds this."""
        return content in self._block_of

    def is_idle(self, content: bytes) -> bool:
        """Tells whether a free block holds this, so that sharing it makes one block less free."""
        block = self._block_of.get(content)
        return block is not None and self._reference_counts[block] == 0

    def share(self, content: bytes) -> int | None:
        """Takes a reference to the block that holds this, for reading only; None if there is none."""
        block = self._block_of.get(content)
        if block is None:
            return None
        if self._reference_counts[block] == 0:
            del self._cached[block]
        self._reference_counts[block] += 1
        return block

    def _forget(self, block: int) -> None:
        content = self._hash_of[block]
        assert content is not None
        del self._block_of[content]
        self._hash_of[block] = None
