"""How a run ended, over all its choices. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.model import Cause, End, FinishReason, Release


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ends of all choices, in the order in which they came; at least one."""

    ends: Sequence[End]

    @property
    def reason(self) -> FinishReason:
        """FAILED if one choice failed, else CANCELLED if one was, else that of the last."""
        return self._decisive.reason

    @property
    def cause(self) -> Cause | None:
        """Who or what cancelled it."""
        return self._decisive.cause

    @property
    def error(self) -> BaseException | None:
        """What went wrong, if something did."""
        return self._decisive.error

    @property
    def output_token_count(self) -> int:
        """Over all choices."""
        return sum(end.output_token_count for end in self.ends)

    @property
    def queue_s(self) -> float:
        """From submission to the first step of any choice."""
        return min(end.queue_s for end in self.ends)

    @property
    def first_token_s(self) -> float | None:
        """From submission to the first token of any choice."""
        return min((end.first_token_s for end in self.ends if end.first_token_s is not None), default=None)

    @property
    def cached_token_count(self) -> int:
        """Of the prompt: what was in the cache when the first choice joined. Later ones find its own tokens there."""
        return next((end.cached_token_count for end in self.ends if end.choice == 0), 0)

    @property
    def release(self) -> Release:
        """What the cache's counter showed: around all choices that a cancel ended together, else around the last."""
        cancelled = [end.release for end in self.ends if end.reason is FinishReason.CANCELLED]
        together = cancelled or [self.ends[-1].release]
        return Release(
            free_before=min(each.free_before for each in together),
            free_after=max(each.free_after for each in together),
            total=together[0].total,
            steps_after=max(each.steps_after for each in together),
            cancel_to_release_s=max(each.cancel_to_release_s for each in together),
        )

    @property
    def _decisive(self) -> End:
        for reason in (FinishReason.FAILED, FinishReason.CANCELLED):
            for end in self.ends:
                if end.reason is reason:
                    return end
        return self.ends[-1]
