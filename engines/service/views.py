"""Writes requests as resources: what is known of one. Pure."""

from __future__ import annotations

from engines.service.arrival import Arrival
from engines.service.identity import Identity
from engines.service.run import Run
from roundhouse.internal.hops import format_location
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1 import generation_pb2, receipt_pb2, request_pb2


def living(identity: Identity, run: Run) -> request_pb2.InferenceRequest:
    """Returns a request that has not ended."""
    has_joined = run.has_joined
    view = _view(identity, run)
    view.state = request_pb2.REQUEST_STATE_RUNNING if has_joined else request_pb2.REQUEST_STATE_WAITING
    if run.log is not None:
        for choice, each in enumerate(run.log.choices):
            view.positions.add(choice=choice, output_token_count=len(each.ids))
    return view


def ended(identity: Identity, run: Run, receipt: receipt_pb2.CancelReceipt) -> request_pb2.InferenceRequest:
    """Returns a request that has ended. Nobody is counted who still reads it."""
    view = _view(identity, run)
    view.state = request_pb2.REQUEST_STATE_ENDED
    view.follower_count = 0
    view.positions.extend(receipt.positions)
    view.receipt.CopyFrom(receipt)
    return view


def never_came(receipt: receipt_pb2.CancelReceipt) -> request_pb2.InferenceRequest:
    """Returns a request that was cancelled before it came."""
    return request_pb2.InferenceRequest(
        deployment=receipt.deployment,
        request_id=receipt.request_id,
        state=request_pb2.REQUEST_STATE_NEVER_CAME,
        receipt=receipt,
    )


def location(identity: Identity, attempt: int) -> str:
    """Returns where a run of this engine runs."""
    where = hop_pb2.Location(replica_uid=identity.replica_uid, engine_uuid=identity.engine_uuid, attempt=attempt)
    return format_location(where)


def _view(identity: Identity, run: Run) -> request_pb2.InferenceRequest:
    arrival, log = run.arrival, run.log
    return request_pb2.InferenceRequest(
        deployment=identity.deployment,
        request_id=arrival.request_id,
        location=location(identity, arrival.attempt),
        replica=identity.replica,
        attempt=arrival.attempt,
        prompt_token_count=None if log is None else len(log.prompt),
        arrival_time=to_timestamp(arrival.time_s),
        priority=arrival.options.priority,
        labels=arrival.options.labels,
        on_disconnect=_on_disconnect(arrival),
        follower_count=run.followers.count,
        finishes=() if log is None else log.finishes,
    )


def _on_disconnect(arrival: Arrival) -> generation_pb2.OnDisconnect | None:
    """Returns what was asked for, with the time that holds where none was."""
    given = arrival.options.on_disconnect
    if arrival.detaches:
        return generation_pb2.OnDisconnect(policy=given.policy, ttl=to_duration(arrival.ttl_s))
    return given if arrival.options.HasField("on_disconnect") else None
