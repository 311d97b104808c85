"""What stands for an engine where the way to the client is measured: streams tokens at a set rate, without a model.

No engine on two cores gives 100,000 tokens a second. This one has an engine's outbox: one message for each token while
its reader keeps up, and one for all that have come while it does not. It speaks to a keeper as engines do, knows
requests by their ids for a cancel, and tells the one gateway that asks it where it is, in a control plane's place.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections import OrderedDict
from typing import Any

from benchmarks.support.fleet_child import answer
from benchmarks.support.token_steps import Steps
from roundhouse.internal.hops import HOP_KEY, LOCATION_KEY, REQUEST_ID_KEY, format_location
from roundhouse.internal.v1 import fleet_service_pb2, hop_pb2
from roundhouse.kit import logs
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2, watch_pb2

DEPLOYMENT = "tokens"
RUN, STREAM_COUNT, RATE = "run", "streams", "rate"  # labels of a request: which run, of how many streams, how fast
FULL = 4096  # tokens that one message tells of, at most
BEAT_S = 2.0
MOST_STREAMS = 10_000
_REMEMBERED = 10_000  # requests that have ended
_REPLICA = f"deployments/{DEPLOYMENT}/replicas/0"
_UUID, _FINGERPRINT = "token-source", "none"
_INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
_FLEET = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
Event = generation_pb2.GenerationEvent


def token_id(position: int) -> int:
    """Returns an id of a large vocabulary, which takes three bytes."""
    return 20_000 + position * 7919 % 100_000


@functools.lru_cache(maxsize=50_000)
def told(first: int, end: int) -> bytes:
    """Returns the message of the tokens [first, end)."""
    ids = [token_id(each) for each in range(first, end)]
    delta = generation_pb2.Delta(
        first_position=first, token_ids=ids, text=" token" * len(ids), channel=generation_pb2.CHANNEL_CONTENT
    )
    return _message(Event(delta=delta))


@functools.lru_cache(maxsize=1_000)
def _hash(count: int) -> bytes:
    return chain(EMPTY, map(token_id, range(count)))


def _message(*events: Event) -> bytes:
    return inference_service_pb2.GenerateResponse(events=events).SerializeToString()


class Source:
    """The methods of `InferenceService` that a relay needs."""

    def __init__(self) -> None:
        self._runs: dict[str, Steps] = {}
        self._live: dict[str, asyncio.Event] = {}  # cancelled, by request
        self._ended: OrderedDict[str, int] = OrderedDict()  # with so many tokens

    async def Generate(self, request: inference_service_pb2.GenerateRequest, context: Any) -> None:  # noqa: N802
        """Streams `max_tokens` tokens, the first of them when all streams of the run have come."""
        request_id, labels = request.request_id, request.options.labels
        location = format_location(hop_pb2.Location(engine_uuid=_UUID, attempt=1))
        await context.send_initial_metadata([(REQUEST_ID_KEY, request_id), (LOCATION_KEY, location)])
        await context.write(_started(request, location, wants_kept=_wants_kept(context)))
        steps = self._runs.get(labels[RUN])
        if steps is None:
            steps = self._runs[labels[RUN]] = Steps(int(labels[STREAM_COUNT]), float(labels[RATE]))
        cancelled = self._live[request_id] = asyncio.Event()
        try:
            with steps.joined():
                count = await self._stream(steps, request.sampling.max_tokens, cancelled, context)
        finally:
            del self._live[request_id]
            if not steps.stream_count:
                self._runs.pop(labels[RUN], None)
        self._remember(request_id, count)
        await context.write(_end(len(request.prompt[0].token_ids.ids), count, is_cancelled=cancelled.is_set()))

    async def CancelRequest(  # noqa: N802
        self, request: inference_service_pb2.CancelRequestRequest, _: Any
    ) -> inference_service_pb2.CancelRequestResponse:
        """Ends a stream before its next token."""
        receipt = receipt_pb2.CancelReceipt(deployment=DEPLOYMENT, request_id=request.request_id, replica=_REPLICA)
        receipt.outcome = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        cancelled = self._live.get(request.request_id)
        if cancelled is not None:
            cancelled.set()
            receipt.outcome = receipt_pb2.CANCEL_OUTCOME_CANCELLED
        elif request.request_id in self._ended:
            receipt.outcome = receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
            receipt.output_token_count = self._ended[request.request_id]
        receipt.attempt = int(receipt.outcome != receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED)  # 1 of what ran here
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)

    async def live(self) -> dict[str, int]:
        """Returns how many streams there are now."""
        return {"count": len(self._live)}

    async def _stream(self, steps: Steps, count: int, cancelled: asyncio.Event, context: Any) -> int:
        """Tells all tokens, or those before a cancel; returns how many."""
        position = 0
        await steps.begun()
        while position < count and not cancelled.is_set():
            end = min(count, position + FULL, steps.due())
            if end > position:
                # The first one says when the run began, by the clock that the client reads too.
                await context.write(_first(end, steps.begin_s) if position == 0 else told(position, end))
                position = end
            else:
                await steps.newer()
        return position

    def _remember(self, request_id: str, count: int) -> None:
        self._ended[request_id] = count
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)


class Feed:
    """`FleetService`, of a fleet of this one engine."""

    def __init__(self) -> None:
        self.address = ""

    async def WatchRoutes(self, _: fleet_service_pb2.WatchRoutesRequest, context: Any) -> None:  # noqa: N802
        """Tells where the engine is, and then that nothing has changed."""
        route = fleet_service_pb2.Route(
            address=self.address,
            engine_uuid=_UUID,
            replica_uid="r0",
            is_ready=True,
            max_running_count=MOST_STREAMS,  # none is to wait at the gateway for a place
        )
        bookmark = fleet_service_pb2.RoutesEvent(bookmark=watch_pb2.Bookmark())
        events = [
            fleet_service_pb2.RoutesEvent(callers=fleet_service_pb2.Callers(are_asked=False)),
            fleet_service_pb2.RoutesEvent(
                changed=fleet_service_pb2.DeploymentRoutes(deployment=DEPLOYMENT, routes=[route])
            ),
            bookmark,
        ]
        while True:
            await context.write(fleet_service_pb2.WatchRoutesResponse(events=events))
            events = [bookmark]
            await asyncio.sleep(BEAT_S)


def _wants_kept(context: Any) -> bool:
    packed = metadata_value(context.invocation_metadata(), HOP_KEY)
    return isinstance(packed, bytes) and hop_pb2.Hop.FromString(packed).wants_kept


def _started(request: inference_service_pb2.GenerateRequest, location: str, *, wants_kept: bool) -> bytes:
    ids = request.prompt[0].token_ids.ids
    started = generation_pb2.Started(
        request_id=request.request_id,
        location=location,
        seed=1,
        fingerprint=_FINGERPRINT,
        prompt_token_count=len(ids),
        attempt=1,
        replica=_REPLICA,
    )
    if not wants_kept:
        return _message(Event(started=started))
    kept = inference_service_pb2.GenerateRequest()
    kept.CopyFrom(request)
    del kept.prompt[:]
    kept.options.resume.prompt_token_ids.ids.extend(ids)
    kept.options.resume.seed, kept.options.resume.fingerprint = 1, _FINGERPRINT
    response = hop_pb2.KeptResponse(events=[Event(started=started)], kept=hop_pb2.Kept(generate=kept))
    return response.SerializeToString()


def _first(end: int, begin_s: float) -> bytes:
    ids = [token_id(each) for each in range(end)]
    return _message(Event(delta=generation_pb2.Delta(token_ids=ids, text=f"{begin_s:.6f}")))


def _end(prompt_count: int, count: int, *, is_cancelled: bool) -> bytes:
    finished = generation_pb2.Finished(
        reason=generation_pb2.FINISH_REASON_CANCELLED if is_cancelled else generation_pb2.FINISH_REASON_LENGTH,
        output_token_count=count,
        token_hash=b"" if is_cancelled else _hash(count),
        exactness=generation_pb2.EXACTNESS_EXACT,
    )
    usage = generation_pb2.Usage(prompt_token_count=prompt_count, output_token_count=count)
    return _message(Event(finished=finished), Event(usage=usage))


async def _main() -> None:
    source, feed = Source(), Feed()
    services = [Service(_INFERENCE, source), Service(_FLEET, feed)]
    async with serve(Listen("127.0.0.1", 0), services, grace_s=0.0) as serving:
        feed.address = serving.address

        async def where() -> dict[str, Any]:
            return {"address": serving.address, "pid": os.getpid()}

        await answer({"where": where, "live": source.live})


if __name__ == "__main__":
    json.loads(sys.argv[1])
    logs.configure("warning")  # to where answers do not go
    asyncio.run(_main())
