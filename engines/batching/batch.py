"""What one step computes."""

from __future__ import annotations

from dataclasses import dataclass

from engines.batching.sequence import Sequence
from engines.model import Sampling


@dataclass(frozen=True, slots=True)
class Row:
    """A run of one sequence's tokens. Their keys and values go to positions `first_position` and on, in `blocks`."""

    sequence: Sequence
    ids: tuple[int, ...]
    first_position: int
    blocks: tuple[int, ...]  # block i holds positions [i * block_size, (i + 1) * block_size)
    needs_logits: bool  # the last id is the sequence's last: what follows it is to be sampled


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step, at most one for each sequence; those with a single id first, shortest sequence first."""

    rows: tuple[Row, ...]

    @property
    def token_count(self) -> int:
        """Tokens over all rows."""
        return sum(len(row.ids) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Draw:
    """All that a sampled token may depend on besides its logits."""

    sampling: Sampling
    position: int  # in the output, from 0
