"""How long a request may take, by what it says, and what its stream tells if it is cancelled while it waits."""

from __future__ import annotations

from collections.abc import Sequence

from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.times import from_duration, to_duration
from roundhouse.v1.generation_pb2 import (
    EXACTNESS_EXACT,
    FINISH_REASON_CANCELLED,
    Finished,
    GenerationEvent,
    OnDisconnect,
    Usage,
)
from roundhouse.v1.inference_service_pb2 import ChatRequest, GenerateRequest, GenerateResponse
from roundhouse.v1.receipt_pb2 import CancelReceipt

DETACH_TTL_S = 60.0  # as engines have it
MAX_HASHED = 1 << 17  # ids, which take some 0.1 s here; more are hardly the output of any model


def deadline_of(request: GenerateRequest | ChatRequest, remaining_s: float | None) -> float | None:
    """Returns after how long a request has to have ended; None if it may take any time.

    remaining_s: until the deadline of its call; None if it has none.
    """
    if not request.options.HasField("max_duration"):
        return remaining_s
    longest_s = from_duration(request.options.max_duration)
    return longest_s if remaining_s is None else min(longest_s, remaining_s)


def ttl_of(on_disconnect: OnDisconnect) -> float:
    """Returns how long a request that detaches goes on while nobody follows it."""
    return from_duration(on_disconnect.ttl) if on_disconnect.HasField("ttl") else DETACH_TTL_S


def shorten(request: GenerateRequest | ChatRequest, waited_s: float) -> None:
    """Takes the time that a request has waited off what it may take."""
    if waited_s > 0 and request.options.HasField("max_duration"):
        left_s = max(1e-9, from_duration(request.options.max_duration) - waited_s)
        request.options.max_duration.CopyFrom(to_duration(left_s))


def withdrawn(receipt: CancelReceipt, waited_s: float, request: GenerateRequest | ChatRequest | None) -> bytes:
    """Returns the only message of the stream of a request that somebody cancelled while it waited.

    request: what was asked; all choices are told that were to be computed if that is not known.
    What the request was to go on behind is its output, which no engine has looked at yet: there is no hash of what
    cannot be one.
    """
    choice_count, given = len(receipt.positions), dict[int, Sequence[int]]()
    if request is not None:
        choice_count = min(choice_count, max(1, request.sampling.n))
        given = {each.choice: each.output_token_ids.ids for each in request.options.resume.choices}
    count = sum(map(len, given.values()))
    finishes = [
        Finished(
            choice=choice,
            reason=FINISH_REASON_CANCELLED,
            output_token_count=len(given.get(choice, ())),
            token_hash=_hash_of(given.get(choice, ())) if count <= MAX_HASHED else b"",
            exactness=EXACTNESS_EXACT,
            cancel_cause=receipt.cause,
        )
        for choice in range(choice_count)
    ]
    waited = to_duration(waited_s)
    usage = Usage(
        output_token_count=sum(each.output_token_count for each in finishes),
        queue_duration=waited,
        total_duration=waited,
    )
    events = [*(GenerationEvent(finished=each) for each in finishes), GenerationEvent(usage=usage)]
    return GenerateResponse(events=events).SerializeToString()  # which reads as that of any stream


def _hash_of(ids: Sequence[int]) -> bytes:
    return chain(EMPTY, ids) if min(ids, default=0) >= 0 else b""
