"""The values that the parts of an engine hand one another. No wire, no tensor, no clock."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


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
    SIBLING = enum.auto()  # another choice of its request failed


class NothingAllowed(ValueError):
    """All that could come next in an output is forbidden by its request."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen, with every default filled in.

    Applied in this order: penalties and biases, what is forbidden (bad words, end tokens before `min_tokens`, a
    grammar), temperature, `top_k`, `top_p`, `typical_p`, `min_p`. Temperature 0 is greedy: the largest of what is left.
    """

    temperature: float  # [0, 2]
    top_p: float  # (0, 1]
    top_k: int  # 0 keeps all
    seed: int
    min_p: float = 0.0  # [0, 1]: keeps tokens at least so likely as this share of the likeliest
    typical_p: float = 1.0  # (0, 1]
    repetition_penalty: float = 1.0  # (0, 2]: over prompt and output
    presence_penalty: float = 0.0  # [-2, 2]: over output
    frequency_penalty: float = 0.0  # [-2, 2]: over output
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id, added), each in [-100, 100]; -100 forbids
    bad_words: tuple[tuple[int, ...], ...] = ()  # runs of ids of which none is ever completed in the output
    min_tokens: int = 0  # before so many output tokens none ends the output


class Constraint(Protocol):
    """What a grammar lets one output go on with. Used by one thread at a time."""

    def mask(self) -> bytes:
        """Returns a bit for each id of the vocabulary, lowest first in each byte: 1 if it may come next."""

    def accept(self, token: int) -> None:
        """Takes the next output id. An end token is taken only where the output may end."""


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence to be generated. `prompt` is at least one id; `len(prompt) + max_tokens <= max_model_len`."""

    key: str  # of its request, unique within the engine while it lives there
    prompt: tuple[int, ...]
    max_tokens: int  # those that it has already among them
    sampling: Sampling
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = field(
        default_factory=frozenset
    )  # the model's end tokens among them, unless ignored
    include_stop: bool = False  # whether the text of what ended it is shown
    choice: int = 0  # which of the request's sequences; they differ in nothing else
    output: tuple[int, ...] = ()  # ids that it has already: it goes on behind them as if it had given them itself
    logprobs: int | None = None  # alternatives to tell for each output token; 0 tells of the token alone, None nothing
    prompt_logprobs: int | None = None  # the same for each token of the prompt but the first
    constraint: Constraint | None = None  # has not seen `output` yet
    priority: int = 0  # [-100, 100]: a higher one goes first
    tenant: str = ""
    deadline_s: float | None = None  # on the step loop's clock: orders who waits; whoever sent it cancels it then


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, by the model alone: before penalties, temperature and all else."""

    token: int
    logprob: float
    rank: int  # from 1, the likeliest


@dataclass(frozen=True, slots=True)
class Logprobs:
    """What was asked for about one token: the token itself, and the likeliest, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token that was drawn."""

    token: int
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class PromptScored:
    """How likely each token of a prompt was, from its second on. Comes before the first `Tokens` of the choice."""

    logprobs: tuple[Logprobs, ...]
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Reread:
    """Texts of the output that a sequence was given, one for each id. Comes before its first `Tokens` and its `End`."""

    texts: tuple[str, ...]
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Output of one sequence: ids from `first_position` on, and with each the text that has become certain with it.

    The last one of a sequence has all text that is left. What a cancel finds held back is told to nobody: the ids say
    it, and whoever goes on behind them says it again.
    """

    first_position: int
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    choice: int = 0
    logprobs: tuple[Logprobs, ...] = ()  # one for each id, if asked for


@dataclass(frozen=True, slots=True)
class Release:
    """What the cache's own counter showed around the release of a sequence's blocks."""

    free_before: int
    free_after: int
    total: int
    steps_after: int  # steps that still computed it after the cancel had arrived
    cancel_to_release_s: float  # 0 without a cancel


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a sequence. Its blocks are free by then."""

    reason: FinishReason
    output_token_count: int  # those that it was started with among them
    release: Release
    matched_stop: str = ""
    matched_token_id: int | None = None
    cause: Cause | None = None
    error: BaseException | None = None
    queue_s: float = 0.0  # from submit to the first step
    first_token_s: float | None = None  # from submit to the first token
    choice: int = 0
    cached_token_count: int = 0  # of the prompt, found in the cache when it first joined


Event = PromptScored | Reread | Tokens | End
Sink = Callable[[Event], None]  # called on the text thread; must not block or raise


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
    # Since the start:
    preemption_count: int = 0  # sequences that lost their blocks to others, and were computed again
    out_of_memory_count: int = 0  # steps that found too little memory, and were made smaller
    prompt_token_count: int = 0  # of the sequences that have joined
    cached_token_count: int = 0  # of these, found in the cache
    drafted_token_count: int = 0  # guessed by speculation
    accepted_token_count: int = 0  # of these, right
    max_running_count: int = 0  # sequences in a step, at the most
