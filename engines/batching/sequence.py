"""One request's tokens, and how far the cache has them."""

from __future__ import annotations

from engines.model import Work


class Sequence:
    """Prompt and output ids, and the blocks for their keys and values.

    [0, computed_count)         in the cache
    [computed_count, len(ids))  to be computed, in chunks; the last of them gives the next token
    """

    __slots__ = ("blocks", "computed_count", "ids", "work")

    def __init__(self, work: Work) -> None:
        assert work.prompt
        assert work.max_tokens > 0
        self.work = work
        self.ids = list(work.prompt)
        self.computed_count = 0
        self.blocks: tuple[int, ...] = ()

    @property
    def output_count(self) -> int:
        """Output tokens so far, which is also the position of the next one."""
        return len(self.ids) - len(self.work.prompt)

    @property
    def pending_count(self) -> int:
        """Tokens whose keys and values are not in the cache yet."""
        return len(self.ids) - self.computed_count

    @property
    def final_count(self) -> int:
        """The most tokens it can come to."""
        return len(self.work.prompt) + self.work.max_tokens

    def advance(self, count: int) -> None:
        """Says that `count` more tokens are in the cache."""
        assert 0 < count <= self.pending_count
        self.computed_count += count

    def append(self, token: int) -> None:
        """Takes the next output token."""
        assert self.output_count < self.work.max_tokens
        self.ids.append(token)
