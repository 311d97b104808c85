"""Writes receipts: what a cancel proved, from the cache's own counters. Pure."""

from __future__ import annotations

from engines.model import Cause, FinishReason
from engines.service.events import cause_of
from engines.service.identity import Identity
from engines.service.outcome import Outcome
from engines.service.run import Run
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1 import receipt_pb2

_BY_CLIENT = (Cause.CLIENT, Cause.DISCONNECT)


def ended(identity: Identity, run: Run, outcome: Outcome, now_s: float) -> receipt_pb2.CancelReceipt:
    """Returns the receipt of a run that has ended; it is the same for whoever asks, however often.

    What ended by itself, or by another cause than its client, had ended before any later cancel: ALREADY_FINISHED. Its
    counts are those of its own end.
    """
    was_cancelled = outcome.reason is FinishReason.CANCELLED and outcome.cause in _BY_CLIENT
    release = outcome.release
    return receipt_pb2.CancelReceipt(
        deployment=identity.deployment,
        request_id=run.arrival.request_id,
        outcome=receipt_pb2.CANCEL_OUTCOME_CANCELLED if was_cancelled else receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED,
        level=receipt_pb2.CANCEL_LEVEL_FREED,
        cause=cause_of(outcome.cause),
        positions=[
            receipt_pb2.ChoicePosition(choice=end.choice, output_token_count=end.output_token_count)
            for end in sorted(outcome.ends, key=lambda end: end.choice)
        ],
        prompt_token_count=_prompt_token_count(run),
        output_token_count=outcome.output_token_count,
        freed_block_count=release.free_after - release.free_before,
        free_block_count_before=release.free_before,
        free_block_count=release.free_after,
        total_block_count=release.total,
        steps_after=release.steps_after,
        elapsed=None if outcome.cause is None else to_duration(run.cancel_lead_s + release.cancel_to_release_s),
        attempt=run.arrival.attempt,
        replica=identity.replica,
        receipt_time=to_timestamp(now_s),
    )


def unproven(identity: Identity, run: Run, now_s: float, *, is_told: bool) -> receipt_pb2.CancelReceipt:
    """Returns the receipt of a run that has not ended.

    is_told: to end, and its step does not come to one; else it goes on, and nothing is going to be proved.
    """
    return receipt_pb2.CancelReceipt(
        deployment=identity.deployment,
        request_id=run.arrival.request_id,
        outcome=receipt_pb2.CANCEL_OUTCOME_UNPROVEN,
        level=receipt_pb2.CANCEL_LEVEL_REQUESTED if is_told else receipt_pb2.CANCEL_LEVEL_UNSPECIFIED,
        prompt_token_count=_prompt_token_count(run),
        attempt=run.arrival.attempt,
        replica=identity.replica,
        receipt_time=to_timestamp(now_s),
    )


def not_arrived(identity: Identity, request_id: str, now_s: float) -> receipt_pb2.CancelReceipt:
    """Returns the receipt of a request that this engine has not seen."""
    return receipt_pb2.CancelReceipt(
        deployment=identity.deployment,
        request_id=request_id,
        outcome=receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED,
        receipt_time=to_timestamp(now_s),
    )


def _prompt_token_count(run: Run) -> int | None:
    return None if run.log is None else len(run.log.prompt)
