"""The values that admission decides over: what a request costs, and one that waits or runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.gateway.admission.accounts import Account

# As engines weigh them: a prompt's tokens are computed many at a time, an output's one in each step.
PROMPT_WEIGHT, OUTPUT_WEIGHT = 1, 4


@dataclass(frozen=True, slots=True)
class Cost:
    """What is known of what a request will cost."""

    prompt_tokens: int  # estimated
    max_tokens: int | None = None  # of each sequence; None: as many as the context allows
    sequences: int = 1  # choices, each with an output of its own

    def output_tokens(self, mean: float) -> int:
        """Returns how much output to expect of all sequences, where one has had so much on average."""
        expected = max(1, round(mean))
        return self.sequences * (expected if self.max_tokens is None else min(expected, self.max_tokens))


class Stage(Enum):
    """What became of a request so far."""

    WAITING = auto()
    GOING = auto()  # it was let in
    LATE = auto()  # its deadline passed while it waited
    TOO_NEAR = auto()  # its turn would come only after its deadline
    PUT_OUT = auto()  # the queue was full
    GONE = auto()  # it has ended, or does not want to wait any more


@dataclass(slots=True, eq=False)
class Request:
    """A request in the line of its deployment. Changed by the line alone."""

    cost: Cost
    arrived_s: float
    priority: int = 0  # [-100, 100]
    due_s: float | None = None  # when it has to have ended
    stage: Stage = Stage.WAITING
    account: Account = field(init=False)
    place: tuple[float, int] = field(init=False)  # among those of its tenant
    tokens: int = 0  # of prompt and output, as expected
    charge: float = 0.0  # what its tenant was charged, weighted
    measured: float = 0.0  # what of it is known to be used, weighted
    prompt_tokens: int = 0  # as told, else as estimated
    output_tokens: int | None = None  # as told
    used_tokens: int = 0  # of prompt and output: none before it is let in, then as expected, at its end as told
    retry_s: float | None = None  # if it was refused: when its like would have its turn
