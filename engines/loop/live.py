"""A request between its arrival and its end: what a token means for it, and what its end says."""

from __future__ import annotations

from dataclasses import dataclass

from engines.batching.scheduler import Freed
from engines.loop.inbox import Arrival, Cancel
from engines.loop.interfaces import Transcript
from engines.model import End, FinishReason, Release, Tokens


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a request ends."""

    reason: FinishReason
    cancel: Cancel | None = None
    steps_after: int = 0  # steps that still computed it after the cancel had come
    error: BaseException | None = None


class Live:
    """Belongs to the step thread."""

    def __init__(self, arrival: Arrival) -> None:
        self.key = arrival.key
        self.sequence = arrival.sequence
        self.sink = arrival.sink
        self.transcript: Transcript | None = None
        self.joined_s: float | None = None  # when its first step began
        self._arrived_s = arrival.time_s
        self._first_token_s: float | None = None

    def accept(self, token: int, now_s: float) -> tuple[Tokens, Ending | None]:
        """Takes the next output token. Raises what its transcript raises; the token is not part of the output then."""
        assert self.transcript is not None
        work, position = self.sequence.work, self.sequence.output_count
        is_stop_token = token in work.stop_token_ids
        is_last = is_stop_token or position + 1 == work.max_tokens
        text = "" if is_stop_token else self.transcript.write(token)
        if is_last:
            text += self.transcript.close()
        self.sequence.append(token)
        if self._first_token_s is None:
            self._first_token_s = now_s
        tokens = Tokens(position, (token,), text)
        if is_stop_token:
            return tokens, Ending(FinishReason.STOP_TOKEN)
        if self.transcript.matched_stop:
            return tokens, Ending(FinishReason.STOP_STRING)
        return tokens, Ending(FinishReason.LENGTH) if is_last else None

    def end(self, ending: Ending, freed: Freed, total: int, now_s: float) -> End:
        """Returns the last event, given what its release showed."""
        reason, cancel = ending.reason, ending.cancel
        matched_stop = ""
        if reason is FinishReason.STOP_STRING:
            assert self.transcript is not None
            matched_stop = self.transcript.matched_stop
        return End(
            reason=reason,
            output_token_count=self.sequence.output_count,
            release=Release(
                free_before=freed.before,
                free_after=freed.after,
                total=total,
                steps_after=ending.steps_after,
                cancel_to_release_s=0.0 if cancel is None else max(0.0, now_s - cancel.time_s),
            ),
            matched_stop=matched_stop,
            matched_token_id=self.sequence.ids[-1] if reason is FinishReason.STOP_TOKEN else None,
            cause=None if cancel is None else cancel.cause,
            error=ending.error,
            queue_s=(now_s if self.joined_s is None else self.joined_s) - self._arrived_s,
            first_token_s=None if self._first_token_s is None else self._first_token_s - self._arrived_s,
        )
