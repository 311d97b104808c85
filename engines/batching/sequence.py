"""One sequence's tokens, and how far the cache has them."""

from __future__ import annotations

import enum
import math

from engines.batching.tenants import Account
from engines.model import Work

NEVER_MS = 1 << 62


class Stage(enum.Enum):
    """Where a sequence is."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    LANDING = enum.auto()  # was put out while rows of it were in flight; waits again when they have come down
    GONE = enum.auto()


class Sequence:
    """Prompt and output ids, and the blocks for their keys and values.

    [0, computed_count)                in the cache
    [computed_count, scheduled_count)  in flight: steps that have not been committed compute them
    [scheduled_count, len(ids))        to be computed, in chunks; the last of them gives the next token

    With one step of overlap the token at `len(ids)` may be in flight, too, before anybody knows its id.
    """

    __slots__ = (
        "account",
        "aged_priority",
        "arrived_ms",
        "blocks",
        "cached_token_count",
        "computed_count",
        "deadline_ms",
        "draft",
        "due_ms",
        "epoch",
        "final_count",
        "hashes",
        "ids",
        "in_flight_count",
        "is_parked",
        "number",
        "registered_count",
        "reserved_count",
        "scheduled_count",
        "scored_count",
        "stage",
        "work",
    )

    def __init__(self, work: Work) -> None:
        assert work.prompt
        assert work.max_tokens > 0
        self.work = work
        self.ids = [*work.prompt, *work.output]
        self.final_count = len(work.prompt) + work.max_tokens  # the most tokens it can come to
        self.computed_count = 0
        self.scheduled_count = 0
        self.in_flight_count = 0  # rows
        self.scored_count = 0 if work.prompt_logprobs is not None else len(work.prompt) - 1  # need no more logits
        self.cached_token_count = 0  # of the prompt, found in the cache when it first joined
        self.blocks: list[int] = []  # never shortened: with a new epoch comes a new list
        self.epoch = 0  # counts how often it lost its blocks
        self.draft: tuple[int, ...] = ()  # guesses at what comes next, for the next step only
        # The step loop sets it while a row in flight waits for something else than its step, such as a grammar's mask:
        # then nothing more of it is scheduled, and that row is committed when its token is there.
        self.is_parked = False

        # The scheduler's own.
        self.stage = Stage.GONE
        self.number = 0  # in order of arrival
        self.arrived_ms = 0
        self.deadline_ms = NEVER_MS if work.deadline_s is None else math.ceil(work.deadline_s * 1000)
        self.due_ms = NEVER_MS  # orders its tenant's queue
        self.aged_priority = work.priority  # with what its waiting has earned, when it last joined
        self.account = Account()  # its tenant's, while it waits or runs
        self.hashes: list[bytes] = []  # of its full blocks, each with all before it
        self.registered_count = 0  # blocks that others may find
        self.reserved_count = 0  # blocks that it joined for, and has not taken yet

    @property
    def output_count(self) -> int:
        """Output tokens so far, which is also the position of the next one."""
        return len(self.ids) - len(self.work.prompt)

    @property
    def is_scored(self) -> bool:
        """Tells whether no more logits of the prompt are wanted than the last ones."""
        return self.scored_count >= len(self.work.prompt) - 1

    def lose_blocks(self) -> list[int]:
        """Forgets what is computed, and returns the blocks that held it. Rows in flight belong to the past now."""
        blocks, self.blocks = self.blocks, []
        self.epoch += 1
        self.computed_count = self.scheduled_count = self.registered_count = 0
        self.draft = ()
        return blocks
