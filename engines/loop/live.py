"""A sequence between its arrival and its end, as the step thread sees it."""

from __future__ import annotations

from engines.batching.batch import Draw
from engines.batching.scheduler import Freed
from engines.batching.sequence import Sequence
from engines.loop.crew import Line
from engines.loop.endings import Ending
from engines.loop.scribe import Scribe
from engines.model import End, FinishReason, Logprobs, Release, Work
from roundhouse.kit.clock import Clock


class Live:
    """Belongs to the step thread, but for `mask`."""

    __slots__ = (
        "_arrived_s",
        "_first_token_s",
        "constraint",
        "grammar",
        "is_late",
        "is_over",
        "is_queued",
        "is_rereading",
        "is_scored",
        "joined_s",
        "key",
        "mask",
        "name",
        "prompt_count",
        "scores",
        "scribe",
        "sequence",
        "text",
        "work",
    )

    def __init__(self, work: Work, arrived_s: float) -> None:
        self.work = work
        self.key = work.key
        self.name = f"{work.key}/{work.choice}"  # unique while it lives
        self.prompt_count = len(work.prompt)
        self.sequence = Sequence(work)
        self.is_queued = False  # known to the scheduler
        self.is_rereading = False  # the text thread reads the output that it was given
        self.is_late = False  # its last step is over, but for the token, which is drawn in a later one
        self.is_over = False
        self.joined_s: float | None = None  # when its first step began
        self.scores: list[Logprobs] = []  # of the prompt, from its second token on
        self.is_scored = work.prompt_logprobs is None  # they have been told, if they are wanted

        self.scribe: Scribe  # writes the text, on the text thread
        self.text = Line()  # of what is to be written
        self.constraint = work.constraint
        self.grammar = Line()  # of what the constraint is to take
        # What the constraint lets come next, or what went wrong with it; None while it is at work. Set by its thread.
        self.mask: bytes | Exception | None = None

        self._arrived_s = arrived_s
        self._first_token_s: float | None = None

    def given_ending(self) -> Ending | None:
        """Returns why nothing is to be added to the output that it was given; None if something is."""
        output, work = self.work.output, self.work
        if output and output[-1] in work.stop_token_ids:
            return Ending(FinishReason.STOP_TOKEN)
        return Ending(FinishReason.LENGTH) if len(output) >= work.max_tokens else None

    def ending_at(self, token: int, position: int) -> Ending | None:
        """Returns why the output ends with this token; None if it goes on, as far as ids can tell."""
        if token in self.work.stop_token_ids:
            return Ending(FinishReason.STOP_TOKEN)
        return Ending(FinishReason.LENGTH) if position + 1 == self.work.max_tokens else None

    def draw(self, position: int, ids: list[int], mask: bytes | None = None) -> Draw:
        """Returns what is asked of the logits that give an output token."""
        work = self.work
        return Draw(
            work.sampling, position, work.choice, ids, self.prompt_count, work.stop_token_ids, mask, work.logprobs
        )

    def has_given(self, clock: Clock) -> None:
        """Says that it gives a token now."""
        if self._first_token_s is None:
            self._first_token_s = clock.monotonic()

    def end(self, ending: Ending, freed: Freed, total: int, steps_after: int, now_s: float) -> End:
        """Returns its last event, as far as the step thread knows."""
        cancel, sequence = ending.cancel, self.sequence
        return End(
            reason=ending.reason,
            output_token_count=sequence.output_count,
            release=Release(
                free_before=freed.before,
                free_after=freed.after,
                total=total,
                steps_after=0 if cancel is None else steps_after,
                cancel_to_release_s=0.0 if cancel is None else max(0.0, now_s - cancel.time_s),
            ),
            matched_token_id=sequence.ids[-1] if ending.reason is FinishReason.STOP_TOKEN else None,
            cause=None if cancel is None else cancel.cause,
            error=ending.error,
            queue_s=(now_s if self.joined_s is None else self.joined_s) - self._arrived_s,
            first_token_s=None if self._first_token_s is None else self._first_token_s - self._arrived_s,
            choice=self.work.choice,
            cached_token_count=sequence.cached_token_count,
        )
