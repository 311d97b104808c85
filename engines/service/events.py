"""Turns what the step thread hands out for a sequence into events of the contract. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from engines.model import Cause, End, Event, FinishReason, Tokens
from roundhouse.kit.times import to_duration
from roundhouse.v1 import generation_pb2, receipt_pb2

EMPTY_HASH = bytes(32)

CAUSES: Mapping[Cause, receipt_pb2.CancelCause] = {
    Cause.CLIENT: receipt_pb2.CANCEL_CAUSE_CLIENT,
    Cause.DEADLINE: receipt_pb2.CANCEL_CAUSE_DEADLINE,
    Cause.DISCONNECT: receipt_pb2.CANCEL_CAUSE_DISCONNECT,
    Cause.ORPHANED: receipt_pb2.CANCEL_CAUSE_ORPHANED,
    Cause.HANDOVER: receipt_pb2.CANCEL_CAUSE_HANDOVER,
    Cause.DELETED: receipt_pb2.CANCEL_CAUSE_DELETED,
    Cause.EVICTED: receipt_pb2.CANCEL_CAUSE_EVICTED,
}
_REASONS: Mapping[FinishReason, generation_pb2.FinishReason] = {
    FinishReason.STOP_TOKEN: generation_pb2.FINISH_REASON_STOP_TOKEN,
    FinishReason.STOP_STRING: generation_pb2.FINISH_REASON_STOP_STRING,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: generation_pb2.FINISH_REASON_CANCELLED,
}


class Output:
    """The output of choice 0 of one request, as told so far."""

    def __init__(self, prompt_token_count: int) -> None:
        self._prompt_token_count = prompt_token_count
        self._hash = EMPTY_HASH

    def deltas(self, events: Sequence[Event]) -> list[generation_pb2.GenerationEvent]:
        """Returns all that is new as one delta, however many steps it took; none if nothing is new."""
        tokens = [each for each in events if isinstance(each, Tokens)]
        if not tokens:
            return []
        ids = [token for each in tokens for token in each.ids]
        self._hash = chain(self._hash, ids)
        delta = generation_pb2.Delta(
            first_position=tokens[0].first_position,
            token_ids=ids,
            text="".join(each.text for each in tokens),
            channel=generation_pb2.CHANNEL_CONTENT,
        )
        return [generation_pb2.GenerationEvent(delta=delta)]

    def end(self, end: End, *, before_submit_s: float, total_s: float) -> list[generation_pb2.GenerationEvent]:
        """Returns the last two events.

        before_submit_s: from arrival to submission, in which the prompt was tokenized. total_s: from arrival to now.
        """
        finished = generation_pb2.Finished(
            reason=_REASONS[end.reason],
            matched_stop=end.matched_stop,
            matched_token_id=end.matched_token_id,
            output_token_count=end.output_token_count,
            token_hash=self._hash,
            exactness=generation_pb2.EXACTNESS_EXACT,
            cancel_cause=cause_of(end),
        )
        usage = generation_pb2.Usage(
            prompt_token_count=self._prompt_token_count,
            output_token_count=end.output_token_count,
            queue_duration=to_duration(before_submit_s + end.queue_s),
            first_token_duration=None
            if end.first_token_s is None
            else to_duration(before_submit_s + end.first_token_s),
            total_duration=to_duration(total_s),
        )
        return [
            generation_pb2.GenerationEvent(finished=finished),
            generation_pb2.GenerationEvent(usage=usage),
        ]


def cause_of(end: End) -> receipt_pb2.CancelCause:
    """Returns who or what ended a sequence; UNSPECIFIED if it ended by itself."""
    return receipt_pb2.CANCEL_CAUSE_UNSPECIFIED if end.cause is None else CAUSES[end.cause]


def chain(previous: bytes, ids: Iterable[int]) -> bytes:
    """Returns the hash chain over `ids` behind `previous`; see `Finished.token_hash`."""
    for each in ids:
        previous = hashlib.sha256(previous + each.to_bytes(4, "little")).digest()
    return previous
