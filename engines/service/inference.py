"""Serves `InferenceService` on an engine: one coroutine per call, which reads what the step loop writes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from engines.loop import QueueFull, Stopped
from engines.model import Cause, FinishReason, NothingAllowed, Work
from engines.service import checks, prompts
from engines.service.call import Call
from engines.service.identity import Identity
from engines.service.lifecycle import Lifecycle
from engines.service.outcome import Outcome
from engines.service.output import Output, ends_with_error
from engines.service.prepare import Encode, prepared
from engines.service.requests import Requests, queue_full
from engines.service.run import Run
from engines.service.served import Served
from engines.service.works import choice_count
from roundhouse.internal.hops import LOCATION_KEY, REQUEST_ID_KEY, format_location
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.errors import DeadlineExceeded, NotFound, Resource, Unreachable
from roundhouse.kit.fields import invalid
from roundhouse.kit.service import Context
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2

ORPHAN_S = 10.0  # whoever takes up a dead gateway's requests has come by then


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
        call = Call(request, inference_service_pb2.GenerateResponse, context, hop)
        await self._serve(call, served, lambda: prompts.encode_parts(served.tokenizer, request.prompt))

    async def Chat(self, request: inference_service_pb2.ChatRequest, context: Context, hop: hop_pb2.Hop) -> None:
        """Streams the answer to a conversation."""
        served = self._lifecycle.require_serving()
        checks.check_chat(request, served.description.vocabulary_size)
        call = Call(request, inference_service_pb2.ChatResponse, context, hop)
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

    async def _serve(self, call: Call, served: Served, encode: Encode) -> None:
        self._require_deployment(call.request.deployment)
        request_id = call.request.request_id or uuid.uuid4().hex
        count = choice_count(call.request.sampling)
        run = self._requests.admit(call.hop.principal, request_id, call.hop.attempt or 1, count)
        # From here on the request can be cancelled, also while its prompt is being tokenized.
        try:
            for bound_s in call.bounds_s():
                run.cancel_in(bound_s, Cause.DEADLINE)
            sequences, output = await prepared(call, run, served, encode)
            _start(run, served, sequences, output)
        except BaseException:
            run.refuse()
            raise
        try:
            await self._stream(call, run, self._started(run, served, sequences[0]))
        finally:
            if not run.ended.done():
                self._left(call, run)
            run.leave()

    async def _stream(self, call: Call, run: Run, started: generation_pb2.Started) -> None:
        metadata = ((REQUEST_ID_KEY, started.request_id), (LOCATION_KEY, started.location))
        await call.context.send_initial_metadata(metadata)
        await call.write([generation_pb2.GenerationEvent(started=started)])
        while events := await run.read():
            await call.write(events)
        outcome = run.ended.result()
        assert outcome is not None
        if ends_with_error(outcome):
            raise _error_of(outcome)

    def _left(self, call: Call, run: Run) -> None:
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


def _start(run: Run, served: Served, sequences: Sequence[Work], output: Output) -> None:
    try:
        run.start(served.steps, sequences, output)
    except QueueFull as error:
        raise queue_full(error.waiting_count) from error
    except Stopped as error:
        message = "the engine stops and takes no new requests: pick another replica"
        raise Unreachable(message, reason=errors_pb2.ERROR_REASON_DRAINING) from error


def _error_of(outcome: Outcome) -> Exception:
    """Returns the error that ends the stream."""
    if outcome.reason is not FinishReason.FAILED:
        count = outcome.output_token_count
        return DeadlineExceeded(f"the deadline passed after {count} output tokens: allow more time")
    if isinstance(outcome.error, NothingAllowed):
        return invalid("sampling", f"{outcome.error}: forbid less")
    failure = RuntimeError("the request failed")
    failure.__cause__ = outcome.error
    return failure


def _location(identity: Identity, attempt: int) -> str:
    location = hop_pb2.Location(replica_uid=identity.replica_uid, engine_uuid=identity.engine_uuid, attempt=attempt)
    return format_location(location)
