"""Writes the values of an engine as messages of the contract. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from engines.model import Cause, End, FinishReason, Logprobs, TokenLogprob
from engines.service.outcome import Outcome
from roundhouse.kit.times import to_duration
from roundhouse.v1 import generation_pb2, receipt_pb2

CAUSES: Mapping[Cause, receipt_pb2.CancelCause] = {
    Cause.CLIENT: receipt_pb2.CANCEL_CAUSE_CLIENT,
    Cause.DEADLINE: receipt_pb2.CANCEL_CAUSE_DEADLINE,
    Cause.DISCONNECT: receipt_pb2.CANCEL_CAUSE_DISCONNECT,
    Cause.ORPHANED: receipt_pb2.CANCEL_CAUSE_ORPHANED,
    Cause.HANDOVER: receipt_pb2.CANCEL_CAUSE_HANDOVER,
    Cause.DELETED: receipt_pb2.CANCEL_CAUSE_DELETED,
    Cause.EVICTED: receipt_pb2.CANCEL_CAUSE_EVICTED,
    Cause.SIBLING: receipt_pb2.CANCEL_CAUSE_UNSPECIFIED,
}
_REASONS: Mapping[FinishReason, generation_pb2.FinishReason] = {
    FinishReason.STOP_TOKEN: generation_pb2.FINISH_REASON_STOP_TOKEN,
    FinishReason.STOP_STRING: generation_pb2.FINISH_REASON_STOP_STRING,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: generation_pb2.FINISH_REASON_CANCELLED,
}


def finished(
    end: End, token_hash: bytes, choice: int, exactness: generation_pb2.Exactness
) -> generation_pb2.GenerationEvent:
    """Returns the last event of a choice that did not fail. `choice` is the number by which its reader knows it."""
    return generation_pb2.GenerationEvent(
        finished=generation_pb2.Finished(
            choice=choice,
            reason=_REASONS[end.reason],
            matched_stop=end.matched_stop,
            matched_token_id=end.matched_token_id,
            output_token_count=end.output_token_count,
            token_hash=token_hash,
            exactness=exactness,
            cancel_cause=cause_of(end.cause),
        )
    )


def usage(
    outcome: Outcome, prompt_token_count: int, *, before_submit_s: float, total_s: float
) -> generation_pb2.GenerationEvent:
    """Returns the last event of all.

    before_submit_s: from arrival to submission, in which the prompt was tokenized. total_s: from arrival to now.
    """
    first_s = outcome.first_token_s
    return generation_pb2.GenerationEvent(
        usage=generation_pb2.Usage(
            prompt_token_count=prompt_token_count,
            output_token_count=outcome.output_token_count,
            queue_duration=to_duration(before_submit_s + outcome.queue_s),
            first_token_duration=None if first_s is None else to_duration(before_submit_s + first_s),
            total_duration=to_duration(total_s),
            cached_prompt_token_count=outcome.cached_token_count,
        )
    )


def logprobs(told: Logprobs) -> generation_pb2.Logprobs:
    """Returns how likely a token was."""
    return generation_pb2.Logprobs(chosen=_logprob(told.chosen), top=[_logprob(each) for each in told.top])


def cause_of(cause: Cause | None) -> receipt_pb2.CancelCause:
    """Returns who or what ended a sequence; UNSPECIFIED if it ended by itself."""
    return receipt_pb2.CANCEL_CAUSE_UNSPECIFIED if cause is None else CAUSES[cause]


def _logprob(told: TokenLogprob) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(token_id=told.token, logprob=told.logprob, rank=told.rank)
