"""Takes what the rows of a step gave: scores of a prompt, tokens, an end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engines.batching.batch import Row
from engines.batching.scheduler import Scheduler
from engines.loop.answers import Answer, accepted
from engines.loop.compute import Kept, Step
from engines.loop.endings import Ending
from engines.loop.live import Live
from engines.loop.lives import Lives
from engines.loop.masks import Masks
from engines.loop.meter import Meter
from engines.model import FinishReason, PromptScored, Sampled
from roundhouse.kit.clock import Clock


class Commits:
    """Belongs to the step thread."""

    def __init__(self, scheduler: Scheduler, lives: Lives, masks: Masks, meter: Meter, clock: Clock) -> None:
        self._scheduler = scheduler
        self._lives = lives
        self._masks = masks
        self._meter = meter
        self._clock = clock
        self.speakers: list[Live] = []  # who gave tokens in the last step

    def take(self, step: Step, answers: Sequence[Answer]) -> None:
        """Commits the rows of a step, but those of the dead."""
        self.speakers = []
        begin = 0
        for live, row, count in zip(step.lives, step.rows, step.answer_counts, strict=True):
            end = begin + count
            if not live.is_over:
                self._take(live, row, answers[begin:end])
            begin = end
        self._masks.hand_out()

    def take_late(self, late: Sequence[tuple[Kept, Answer]]) -> None:
        """Commits rows of steps before, whose tokens could not be drawn until now."""
        for kept, answer in late:
            if not kept.live.is_over:
                kept.live.sequence.is_parked = kept.live.is_late = False
                self._take(kept.live, kept.row, (answer,))

    def _take(self, live: Live, row: Row, answers: Sequence[Answer]) -> None:
        position = live.sequence.output_count
        sampled, ending = accepted(live, row, answers)
        if not live.is_scored:
            self._tell_scores(live)
        if sampled or not row.draws:
            self._scheduler.commit(row, [each.token for each in sampled])
        elif live.sequence.is_parked:
            live.is_late = True
            self._scheduler.computed(row)
        if sampled:
            self._say(live, position, sampled, ending)
        if row.draft_count:
            self._meter.drafted_count += row.draft_count
            self._meter.accepted_count += max(0, len(sampled) - 1)
        if ending is not None:
            self._lives.end(live, ending)

    def _say(self, live: Live, position: int, sampled: Sequence[Sampled], ending: Ending | None) -> None:
        self._meter.token_count += len(sampled)
        live.has_given(self._clock)
        is_last = ending is not None and ending.reason is not FinishReason.FAILED
        self._lives.tell(live, partial(live.scribe.write, position, sampled, ending if is_last else None))
        if ending is None:
            self.speakers.append(live)
            if live.constraint is not None:
                self._masks.ask(live, [each.token for each in sampled])

    def _tell_scores(self, live: Live) -> None:
        if len(live.scores) == live.prompt_count - 1:
            live.is_scored = True
            self._lives.tell(live, partial(live.scribe.score, PromptScored(tuple(live.scores), live.work.choice)))
