"""What is told to those whose turn does not come."""

from __future__ import annotations

from controlplane.gateway.admission.quotas import Exceeded
from roundhouse.kit.errors import DeadlineExceeded, NoCapacity, QuotaViolation
from roundhouse.v1 import errors_pb2

# When nothing was measured yet, and between which limits what was is believed: nobody is to call at once, nor never.
RETRY_S, LEAST_RETRY_S, MOST_RETRY_S = 1.0, 0.1, 60.0


def queue_full(deployment: str, max_requests: int, max_tokens: int, retry_s: float | None) -> NoCapacity:
    """Returns the error of a request for which the queue has no place, or no more."""
    return NoCapacity(
        f'as many requests wait for deployment "{deployment}" as may, {max_requests} of {max_tokens} tokens: try again '
        "later, or add replicas",
        reason=errors_pb2.ERROR_REASON_QUEUE_FULL,
        retry_after_s=_bounded(retry_s),
    )


def deadline_too_near(deployment: str, deadline_s: float, retry_s: float | None) -> NoCapacity:
    """Returns the error of a request whose turn would come `retry_s` after its deadline."""
    return NoCapacity(
        f'so many requests wait for deployment "{deployment}" that the turn of this one comes {retry_s or 0:.1f} s '
        f"after its deadline in {deadline_s:.1f} s: allow more time, or try again later",
        reason=errors_pb2.ERROR_REASON_DEADLINE_TOO_NEAR,
        retry_after_s=_bounded(retry_s),
    )


def quota_exceeded(tenant: str, exceeded: Exceeded) -> NoCapacity:
    """Returns the error of a request whose tenant has used up its quota."""
    who = f'tenant "{tenant}"' if tenant else "the default tenant"
    return NoCapacity(
        f"{who} has used up its quota of {exceeded.what}: try again in {exceeded.retry_s:.1f} s, or have it raised",
        reason=errors_pb2.ERROR_REASON_QUOTA_EXCEEDED,
        quota=[QuotaViolation(f"tenants/{tenant}", f"{exceeded.what} at this gateway")],
        retry_after_s=_bounded(exceeded.retry_s),
    )


def too_late(deployment: str, waited_s: float) -> DeadlineExceeded:
    """Returns the error of a request whose deadline passed while it waited."""
    return DeadlineExceeded(
        f'the deadline passed while the request waited {waited_s:.1f} s for deployment "{deployment}": allow more '
        "time, or add replicas"
    )


def _bounded(retry_s: float | None) -> float:
    return RETRY_S if retry_s is None else max(LEAST_RETRY_S, min(retry_s, MOST_RETRY_S))
