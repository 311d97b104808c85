"""What one step computes, and what is asked of its logits."""

from __future__ import annotations

from collections.abc import Sequence as Run
from dataclasses import dataclass

from engines.batching.sequence import Sequence
from engines.model import Sampling

PENDING = -1  # stands for an id that the step before gives: it was not known yet when this step was scheduled


# Not frozen: that makes it five times as slow to create, and there is one for each sequence in each step.
@dataclass(slots=True, eq=False)
class Row:
    """A run of one sequence's tokens. Their keys and values go to positions `first_position` and on, in `blocks`.

    [0, logits_from)         of `ids`: no logits are wanted
    [logits_from, len(ids))  of `ids`: the logits behind each of them are

    Nobody changes it. Logits behind a token of the prompt tell how likely the prompt's next one was; those behind the
    last of `ids` give the next token if `draws`.
    """

    sequence: Sequence
    ids: tuple[int, ...]  # the last may be PENDING; the last `draft_count` are guesses
    first_position: int
    blocks: Run[int]  # block i holds positions [i * block_size, (i + 1) * block_size); only grows within an epoch
    logits_from: int
    draft_count: int = 0
    epoch: int = 0  # of the sequence's blocks when this was scheduled
    draws: bool = True

    @property
    def logits_count(self) -> int:
        """Tokens whose logits are wanted."""
        return len(self.ids) - self.logits_from


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step, at most one for each sequence; those with a single id first, in no other order."""

    rows: tuple[Row, ...]

    @property
    def token_count(self) -> int:
        """Tokens over all rows."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def logits_count(self) -> int:
        """Tokens over all rows whose logits are wanted."""
        return sum(row.logits_count for row in self.rows)


@dataclass(frozen=True, slots=True)
class Draw:
    """All that a sampled token may depend on besides its logits."""

    sampling: Sampling
    position: int  # in the output, from 0
    choice: int = 0
    ids: Run[int] = ()  # prompt and output before it; not to be changed or kept
    prompt_count: int = 0
    end_ids: frozenset[int] = frozenset()  # forbidden before `sampling.min_tokens`
    mask: bytes | None = None  # as `Constraint.mask` gives it
    top: int | None = None  # alternatives whose logprobs are wanted; None: not even its own


@dataclass(frozen=True, slots=True)
class Score:
    """Asks how likely a token of the prompt was."""

    token: int
    top: int


Ask = Draw | Score
