"""Has a step computed, and asks of its logits what is to be known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.batching.batch import Ask, Batch, Row
from engines.loop.answers import Answer, asks_of
from engines.loop.endings import failed
from engines.loop.interfaces import Answers, OutOfMemory, Runner
from engines.loop.live import Live
from engines.loop.lives import Lives
from engines.loop.masks import Masks
from engines.loop.meter import Meter
from roundhouse.kit.clock import Clock

# How long a step that is being computed on a device is looked away from, for the masks of the tokens before it.
_GRACE_S = 0.001


@dataclass(slots=True, eq=False)
class Kept:
    """Logits of a row whose mask had not come when they were there. Its sequence is parked."""

    live: Live
    row: Row
    logits: object


@dataclass(slots=True, eq=False)
class Step:
    """One step under way."""

    rows: Sequence[Row] = ()
    lives: Sequence[Live] = ()
    logits: object = None
    answer_counts: list[int] = field(default_factory=list)  # of each row
    answers: Answers | None = None
    late: list[tuple[Kept, Answers]] = field(default_factory=list)  # of rows of steps before
    error: Exception | None = None  # why there are no logits

    @property
    def is_empty(self) -> bool:
        """Tells whether there is nothing to wait for."""
        return not self.rows and not self.late

    def drop(self) -> None:
        """Forgets its rows: they were not computed."""
        self.rows = self.lives = ()
        self.answer_counts = []
        self.logits = self.answers = self.error = None


class Computer:
    """Belongs to the step thread."""

    def __init__(self, runner: Runner, lives: Lives, masks: Masks, meter: Meter, clock: Clock) -> None:
        self._runner = runner
        self._lives = lives
        self._masks = masks
        self._meter = meter
        self._clock = clock
        self._kept: list[Kept] = []

    def forward(self, step: Step) -> None:
        """Has the rows computed; the step keeps what goes wrong."""
        if step.rows:
            self._meter.begin(self._clock.monotonic())
            try:
                step.logits = self._runner.forward(Batch(tuple(step.rows)))
            except Exception as error:  # noqa: BLE001 - raised again when the step is sampled
                step.error = error

    def sample(self, step: Step) -> None:
        """Asks for what is to be known. Raises what went wrong with the forward pass."""
        if not step.rows:
            return
        try:
            if step.error is not None:
                raise step.error
            if self._runner.depth:
                self._settle(step)
            asks: list[Ask | None] = []
            for live, row in zip(step.lives, step.rows, strict=True):
                mine = self._asks_of(live, row, step.logits, len(asks))
                asks += mine
                step.answer_counts.append(len(mine) - mine.count(None))
            step.answers = self._runner.sample(step.logits, asks)
        except Exception:
            self._meter.end(self._clock.monotonic())
            raise

    def wait(self, step: Step) -> Sequence[Answer]:
        """Waits for what was asked. Raises what went wrong with the forward pass."""
        if step.answers is None:
            return ()
        try:
            return step.answers.wait()
        finally:
            self._meter.end(self._clock.monotonic())

    def wait_late(self, step: Step) -> list[tuple[Kept, Answer]]:
        """Waits for what was asked of logits that were kept."""
        return [(kept, _wait_one(answers)) for kept, answers in step.late]

    def abandon(self, step: Step) -> None:
        """Forgets a step that counted on another one, which has failed."""
        if step.rows:
            self._meter.end(self._clock.monotonic())
            step.drop()

    def sample_late(self, step: Step) -> None:
        """Asks for the tokens of rows that were kept, where the mask has come by now."""
        kept, self._kept = self._kept, []
        for each in kept:
            live = each.live
            if live.is_over:
                continue
            if live.mask is None:
                self._kept.append(each)
            elif isinstance(live.mask, Exception):
                self._lives.end(live, failed(live.mask))
            else:
                sequence = live.sequence
                draw = live.draw(sequence.output_count, sequence.ids, live.mask)
                try:
                    step.late.append((each, self._runner.sample(each.logits, [draw])))
                except OutOfMemory as error:
                    if step.is_empty:
                        self._lives.end(live, failed(error))  # it will not find more
                    else:
                        self._kept.append(each)
                except Exception as error:  # noqa: BLE001 - the request is told
                    self._lives.end(live, failed(error))

    def drop_kept(self, rows: Sequence[Row]) -> None:
        """Forgets what was kept of these rows."""
        lost = [each for each in self._kept if each.row in rows]
        for each in lost:
            each.live.sequence.is_parked = False
            self._kept.remove(each)

    def _asks_of(self, live: Live, row: Row, logits: object, first_place: int) -> list[Ask | None]:
        count = len(row.ids) - row.logits_from
        if live.is_over or not count:
            return [None] * count
        if live.constraint is None or not row.draws:
            return asks_of(live, row)
        mask = live.mask
        if isinstance(mask, bytes):
            return asks_of(live, row, mask)
        if mask is not None:
            self._lives.end(live, failed(mask))
            return [None] * count
        self._kept.append(Kept(live, row, self._runner.pick(logits, [first_place + count - 1])))
        live.sequence.is_parked = True  # not before: if `pick` raises, nobody would take that back
        return [*asks_of(live, row)[:-1], None]

    def _settle(self, step: Step) -> None:
        pairs = zip(step.lives, step.rows, strict=True)
        asked = [live for live, row in pairs if live.constraint is not None and row.draws and not live.is_over]
        if asked:
            self._masks.settle(asked, _GRACE_S)


def _wait_one(answers: Answers) -> Answer:
    try:
        [answer] = answers.wait()
    except Exception as error:  # noqa: BLE001 - the request is told
        return error
    return answer
