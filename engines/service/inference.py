"""Serves `InferenceService` on an engine: one coroutine per call, which reads what the step thread writes."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable

from engines.loop import QueueFull, Stopped
from engines.model import Cause, End, FinishReason, Work
from engines.service import checks, prompts
from engines.service.events import Output
from engines.service.identity import Identity
from engines.service.lifecycle import Lifecycle
from engines.service.requests import Requests, queue_full
from engines.service.run import Run
from engines.service.served import Served
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY, format_location
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.errors import DeadlineExceeded, NotFound, Resource, Unreachable
from roundhouse.kit.service import Context
from roundhouse.kit.times import from_duration
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2

ORPHAN_S = 10.0  # whoever takes up a dead gateway's requests has come by then
# The transport and our own timer watch the same deadline; whichever is first, the cause is the deadline.
DEADLINE_TOLERANCE_S = 0.05

Request = inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest
Response = type[inference_service_pb2.GenerateResponse] | type[inference_service_pb2.ChatResponse]
Encode = Callable[[], Awaitable[tuple[int, ...]]]


class Inference:
    """Methods as in `inference_service.proto`."""

    def __init__(
        self, identity: Identity, lifecycle: Lifecycle, requests: Requests, *, orphan_s: float = ORPHAN_S
    ) -> None:
        self._identity = identity
        self._lifecycle = lifecycle
        self._requests = requests
        self._orphan_s = orphan_s

    async def Generate(
        self, request: inference_service_pb2.GenerateRequest, context: Context, hop: hop_pb2.Hop
    ) -> None:
        """Streams the continuation of a prompt."""
        served = self._lifecycle.require_serving()
        checks.check_generate(request, served.description.vocabulary_size)
        call = _Call(request, inference_service_pb2.GenerateResponse, context, hop)
        await self._serve(call, served, lambda: prompts.encode_parts(served.tokenizer, request.prompt))

    async def Chat(self, request: inference_service_pb2.ChatRequest, context: Context, hop: hop_pb2.Hop) -> None:
        """Streams the answer to a conversation."""
        served = self._lifecycle.require_serving()
        checks.check_chat(request, served.description.vocabulary_size)
        call = _Call(request, inference_service_pb2.ChatResponse, context, hop)
        await self._serve(call, served, lambda: prompts.encode_messages(served.tokenizer, request.messages))

    async def CancelRequest(
        self, request: inference_service_pb2.CancelRequestRequest, _context: Context, hop: hop_pb2.Hop
    ) -> inference_service_pb2.CancelRequestResponse:
        """Ends a request and proves it."""
        checks.check_cancel(request)
        self._require_deployment(request.deployment)
        has_left = hop.cancel_cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
        cause = Cause.DISCONNECT if has_left else Cause.CLIENT
        receipt = await self._requests.cancel(hop.principal, request.request_id, cause)
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)

    async def _serve(self, call: _Call, served: Served, encode: Encode) -> None:
        self._require_deployment(call.request.deployment)
        request_id = call.request.request_id or uuid.uuid4().hex
        run = self._requests.admit(call.hop.principal, request_id, call.hop.attempt or 1)
        # From here on the request can be cancelled, also while its prompt is being tokenized.
        try:
            for bound_s in call.bounds_s():
                run.cancel_in(bound_s, Cause.DEADLINE)
            work = prompts.sequence(
                run.key, await encode(), call.request.sampling, served.description, field=call.prompt_field
            )
            _start(run, served, work)
        except BaseException:
            run.refuse()
            raise
        try:
            await self._stream(call, run, self._started(run, served, work))
        finally:
            if not run.ended.done():
                self._left(call, run)
            run.leave()

    async def _stream(self, call: _Call, run: Run, started: generation_pb2.Started) -> None:
        metadata = ((REQUEST_ID_KEY, started.request_id), (LOCATION_KEY, started.location))
        await call.context.send_initial_metadata(metadata)
        await call.write([generation_pb2.GenerationEvent(started=started)])
        output = Output(run.prompt_token_count)
        while True:
            taken = await run.take()
            events, end = output.deltas(taken), taken[-1]
            if not isinstance(end, End):
                await call.write(events)
                continue
            error = _error_of(end)
            if error is None:
                events += output.end(end, before_submit_s=run.before_submit_s, total_s=run.age_s())
            await call.write(events)
            if error is not None:
                raise error
            return

    def _left(self, call: _Call, run: Run) -> None:
        """Decides what becomes of a run whose call has ended before it."""
        if call.hop.keeper:
            run.cancel_in(self._orphan_s, Cause.ORPHANED)
        else:
            run.cancel(Cause.DEADLINE if call.is_overdue(run.age_s()) else Cause.DISCONNECT)

    def _started(self, run: Run, served: Served, work: Work) -> generation_pb2.Started:
        return generation_pb2.Started(
            request_id=run.request_id,
            location=_location(self._identity, run.attempt),
            seed=work.sampling.seed,
            fingerprint=served.fingerprint,
            prompt_token_count=len(work.prompt),
            attempt=run.attempt,
            replica=self._identity.replica,
        )

    def _require_deployment(self, deployment: str) -> None:
        if deployment != self._identity.deployment:
            raise NotFound(
                f'this engine serves deployment "{self._identity.deployment}", not "{deployment}": check the name',
                resource=Resource("roundhouse.v1.Deployment", f"deployments/{deployment}"),
            )


class _Call:
    """One call for a generation, as it came."""

    def __init__(self, request: Request, response: Response, context: Context, hop: hop_pb2.Hop) -> None:
        self.request = request
        self.context = context
        self.hop = hop
        self.prompt_field = "messages" if isinstance(request, inference_service_pb2.ChatRequest) else "prompt"
        self._response = response
        self._remaining_s: float | None = context.time_remaining()

    def bounds_s(self) -> list[float]:
        """Returns after how long the request has to end, by its call's deadline and by its own wish."""
        bounds_s = [] if self._remaining_s is None else [self._remaining_s]
        if self.request.options.HasField("max_duration"):
            bounds_s.append(from_duration(self.request.options.max_duration))
        return bounds_s

    def is_overdue(self, age_s: float) -> bool:
        """Tells whether the deadline of the call has passed, so long after it arrived."""
        return self._remaining_s is not None and age_s >= self._remaining_s - DEADLINE_TOLERANCE_S

    async def write(self, events: list[generation_pb2.GenerationEvent]) -> None:
        """Sends events as one message; nothing if there are none."""
        if events:
            await self.context.write(self._response(events=events))


def _start(run: Run, served: Served, work: Work) -> None:
    try:
        run.start(served.steps, work)
    except QueueFull as error:
        raise queue_full(error.waiting_count) from error
    except Stopped as error:
        message = "the engine stops and takes no new requests: pick another replica"
        raise Unreachable(message, reason=errors_pb2.ERROR_REASON_DRAINING) from error


def _error_of(end: End) -> Exception | None:
    """Returns the error that ends the stream in place of `finished`; None if there is none."""
    if end.reason is FinishReason.FAILED:
        failure = RuntimeError("the sequence failed")
        failure.__cause__ = end.error
        return failure
    if end.cause is Cause.DEADLINE:
        return DeadlineExceeded(f"the deadline passed after {end.output_token_count} output tokens: allow more time")
    return None


def _location(identity: Identity, attempt: int) -> str:
    location = hop_pb2.Location(replica_uid=identity.replica_uid, engine_uuid=identity.engine_uuid, attempt=attempt)
    return format_location(location)
