"""Counts KV blocks: each is free or held by one sequence."""

from __future__ import annotations

from collections.abc import Iterable


class BlockPool:
    """Hands out blocks by number. Free and used blocks add up to the total after any history."""

    def __init__(self, total: int, block_size: int) -> None:
        assert total > 0
        assert block_size > 0
        self.total = total
        self.block_size = block_size
        self._free = list(range(total - 1, -1, -1))  # a stack: the block freed last is the likeliest to be in a cache
        self._is_used = bytearray(total)

    @property
    def free_count(self) -> int:
        """Blocks that nobody holds. May be read from any thread."""
        return len(self._free)

    @property
    def used_count(self) -> int:
        """Blocks that somebody holds."""
        return sum(self._is_used)

    def blocks_for(self, token_count: int) -> int:
        """Returns how many blocks hold the keys and values of so many tokens."""
        return -(-token_count // self.block_size)

    def allocate(self, count: int) -> tuple[int, ...]:
        """Takes `count` blocks, of which the caller has made sure that they are free."""
        assert 0 <= count <= len(self._free), f"{count} blocks wanted, {len(self._free)} free"
        taken = tuple(self._free.pop() for _ in range(count))
        for block in taken:
            self._is_used[block] = 1
        return taken

    def release(self, blocks: Iterable[int]) -> None:
        """Gives blocks back; each must be held."""
        for block in blocks:
            assert self._is_used[block], f"block {block} is released twice"
            self._is_used[block] = 0
            self._free.append(block)
