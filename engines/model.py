"""The values that the parts of an engine hand one another. No wire, no tensor, no clock."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field


class FinishReason(enum.Enum):
    """Why an output ended."""

    STOP_TOKEN = enum.auto()
    STOP_STRING = enum.auto()
    LENGTH = enum.auto()
    CANCELLED = enum.auto()
    FAILED = enum.auto()  # an exception in this request's own processing; `End.error` has it


class Cause(enum.Enum):
    """Who or what cancelled a request."""

    CLIENT = enum.auto()
    DEADLINE = enum.auto()
    DISCONNECT = enum.auto()
    ORPHANED = enum.auto()
    HANDOVER = enum.auto()
    DELETED = enum.auto()
    EVICTED = enum.auto()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen, with every default filled in. Temperature 0 is greedy; `top_k` 0 keeps all."""

    temperature: float
    top_p: float
    top_k: int
    seed: int


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence to be generated. `prompt` is at least one id; `len(prompt) + max_tokens <= max_model_len`."""

    key: str  # unique within the engine while it lives there
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = field(
        default_factory=frozenset
    )  # the model's end tokens among them, unless ignored


@dataclass(frozen=True, slots=True)
class Tokens:
    """Output of one sequence: ids from `first_position` on, and the text that has become certain.

    The last one of a sequence has all text that is left. What a cancel finds held back is told to nobody: the ids say
    it, and whoever goes on behind them says it again.
    """

    first_position: int
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Release:
    """What the cache's own counter showed around the release of a sequence's blocks."""

    free_before: int
    free_after: int
    total: int
    steps_after: int  # steps that still computed it after the cancel had arrived: 0 or 1
    cancel_to_release_s: float  # 0 without a cancel


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a sequence. Its blocks are free by then."""

    reason: FinishReason
    output_token_count: int
    release: Release
    matched_stop: str = ""
    matched_token_id: int | None = None
    cause: Cause | None = None
    error: BaseException | None = None
    queue_s: float = 0.0  # from submit to the first step
    first_token_s: float | None = None  # from submit to the first token


Event = Tokens | End
Sink = Callable[[Event], None]  # called on the step thread; must not block or raise


@dataclass(frozen=True, slots=True)
class Progress:
    """What the step loop is doing. Read from any thread, also while a forward hangs."""

    running_count: int
    waiting_count: int
    free_blocks: int
    total_blocks: int
    step_count: int
    last_step_age_s: float | None  # None before the first step; while a step runs, its age so far
    busy_fraction: float  # share of the last second spent in steps
    output_token_count: int
