"""The most that may ever be asked of a runner, and a step that asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from engines.batching.batch import Batch, Row
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work

_GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a step may have, and a sequence."""

    rows: int
    tokens: int
    context: int  # tokens of a sequence


def largest_batch(limits: Limits, trash_block: int) -> Batch:
    """Returns prompts with as many tokens as a step may have, all written to one block, of which nothing is kept."""
    rows: list[Row] = []
    left = limits.tokens
    while left > 0 and len(rows) < limits.rows:
        count = min(left, limits.context)
        left -= count
        sequence = Sequence(Work("largest", (0,), max_tokens=1, sampling=_GREEDY))
        rows.append(Row(sequence, (0,) * count, 0, (trash_block,) * count, logits_from=count - 1))
    return Batch(tuple(reversed(rows)))  # what has a single token comes first
