"""Reads off messages what a request will cost, and what it did."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from controlplane.gateway.admission.requests import Cost
from roundhouse.v1 import generation_pb2
from roundhouse.v1.inference_service_pb2 import ChatRequest, GenerateRequest, GenerateResponse

BYTES_PER_TOKEN = 4  # of text in UTF-8, about; which tokens it makes is known to engines alone
_MOST_SEQUENCES = 16  # engines refuse more


def cost_of(request: GenerateRequest | ChatRequest) -> Cost:
    """Returns what a request will cost, as far as it tells. Engines find what is wrong with it."""
    sampling = request.sampling
    sequences = max(1, sampling.n, sampling.best_of)
    return Cost(
        prompt_tokens=max(1, _prompt_tokens(request)),
        max_tokens=max(1, sampling.max_tokens) if sampling.HasField("max_tokens") else None,
        sequences=min(sequences, _MOST_SEQUENCES),
    )


def usage_in(message: bytes) -> generation_pb2.Usage | None:
    """Returns the usage that the last message of a stream tells; None if it tells none."""
    try:
        events = GenerateResponse.FromString(message).events  # those of all streams look alike
    except DecodeError:
        return None
    return events[-1].usage if events and events[-1].HasField("usage") else None


def _prompt_tokens(request: GenerateRequest | ChatRequest) -> int:
    if request.options.resume.HasField("prompt_token_ids"):
        return len(request.options.resume.prompt_token_ids.ids)
    if isinstance(request, GenerateRequest):
        parts = list(request.prompt)
    else:
        parts = [part for message in request.messages for part in message.content]
    text_bytes = sum(len(part.text.encode()) for part in parts)
    return text_bytes // BYTES_PER_TOKEN + sum(len(part.token_ids.ids) for part in parts)
