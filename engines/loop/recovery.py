"""What is done about a step that fails: it is computed again in smaller pieces, until those at fault are alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engines.batching.batch import PENDING, Batch, Row
from engines.batching.scheduler import Scheduler
from engines.loop.commits import Commits
from engines.loop.compute import Computer, Step
from engines.loop.endings import failed
from engines.loop.faults import Budget, Strikes
from engines.loop.interfaces import OutOfMemory
from engines.loop.live import Live
from engines.loop.lives import Lives
from engines.loop.probe import Probe

Pair = tuple[Live, Row]


class Recovery:
    """Belongs to the step thread."""

    def __init__(self, computer: Computer, scheduler: Scheduler, lives: Lives, commits: Commits, probe: Probe) -> None:
        self.budget = Budget(scheduler)
        self._computer = computer
        self._scheduler = scheduler
        self._lives = lives
        self._commits = commits
        self._probe = probe
        self._strikes = Strikes()

    def has_passed(self, step: Step) -> None:
        """Says that a step was computed."""
        if step.rows:
            self.budget.has_passed()
            self._strikes.clear()

    def recover(self, step: Step, error: Exception, behind: Step | None = None) -> None:
        """Computes a failed step again. Raises what goes wrong if nothing at all can be computed any more.

        behind: the step that counted on this one, and was begun already; nothing of it counts either.
        """
        if behind is not None:
            self._scheduler.retract(Batch(tuple(behind.rows)))
            self._computer.abandon(behind)
        self._strikes.strike()
        self._retry(step, error)
        if self._strikes.are_many:
            self._probe.take()
            self._strikes.clear()

    def _retry(self, step: Step, error: Exception) -> None:
        failed_rows = step.rows
        pairs = self._current(step)
        step.drop()
        if isinstance(error, OutOfMemory):
            token_count = sum(len(row.ids) for row in failed_rows)
            self.budget.shrink(token_count)
            if token_count == 1:
                self._fail(pairs, error)
            else:
                self._scheduler.retract(Batch(tuple(row for _, row in pairs)))
                self._strikes.clear()
        elif len(failed_rows) == 1:
            self._fail(pairs, error)
        else:
            middle = (len(pairs) + 1) // 2
            self._compute(pairs[:middle])
            self._compute(pairs[middle:])

    def _current(self, step: Step) -> list[Pair]:
        """Returns what of a step can be computed again. What lost its blocks meanwhile will be in a later step."""
        self._computer.drop_kept(step.rows)
        self._lives.apply_cancels()
        pairs = [pair for pair in zip(step.lives, step.rows, strict=True) if not pair[0].is_over]
        stale = [row for live, row in pairs if row.epoch != live.sequence.epoch]
        self._scheduler.retract(Batch(tuple(stale)))
        return [(live, _known(row)) for live, row in pairs if row.epoch == live.sequence.epoch]

    def _fail(self, pairs: Sequence[Pair], error: Exception) -> None:
        """Ends the one row that has failed alone."""
        for live, _ in pairs:  # or nobody, if it was cancelled meanwhile
            self._lives.end(live, failed(error))

    def _compute(self, pairs: Sequence[Pair]) -> None:
        alive = [pair for pair in pairs if not pair[0].is_over]
        step = Step([row for _, row in alive], [live for live, _ in alive])
        self._computer.forward(step)
        try:
            self._computer.sample(step)
            answers = self._computer.wait(step)
        except Exception as error:  # noqa: BLE001 - the request is told, in the end
            self._retry(step, error)
        else:
            self._lives.apply_cancels()
            self._commits.take(step, answers)
            self.has_passed(step)


def _known(row: Row) -> Row:
    """Returns the row with the id that was not known when it was scheduled."""
    if row.ids[-1] != PENDING:
        return row
    return replace(row, ids=(*row.ids[:-1], row.sequence.ids[row.first_position + len(row.ids) - 1]))
