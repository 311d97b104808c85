"""Serves `InferenceService` on an engine: one coroutine per call, which reads what the step loop writes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial

from engines.loop import QueueFull, Stopped
from engines.model import Cause, Work
from engines.service import checks, prompts, views
from engines.service.arrival import Request, detaches
from engines.service.call import Call, Submission
from engines.service.exactness import Lineage, lineage
from engines.service.following import follow
from engines.service.identity import Identity
from engines.service.lifecycle import Lifecycle
from engines.service.listing import page
from engines.service.log import Log
from engines.service.prepare import Encode, prepared
from engines.service.requests import Requests, queue_full
from engines.service.run import Run
from engines.service.served import Served
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.errors import NotFound, Resource, Unreachable
from roundhouse.kit.service import Context
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2

Begin = Callable[[Served], Encode]  # checks a request, and says how its prompt is encoded


class Inference:
    """Methods as in `inference_service.proto`."""

    def __init__(self, identity: Identity, lifecycle: Lifecycle, requests: Requests) -> None:
        self._identity = identity
        self._lifecycle = lifecycle
        self._requests = requests

    async def Generate(
        self, request: inference_service_pb2.GenerateRequest, context: Context, hop: hop_pb2.Hop
    ) -> None:
        """Streams the continuation of a prompt."""

        def begin(served: Served) -> Encode:
            checks.check_generate(request, served.description.vocabulary_size)
            return lambda: prompts.encode_parts(served.tokenizer, request.prompt)

        await self._serve(request, Call(inference_service_pb2.GenerateResponse, context, hop), begin)

    async def Chat(self, request: inference_service_pb2.ChatRequest, context: Context, hop: hop_pb2.Hop) -> None:
        """Streams the answer to a conversation."""

        def begin(served: Served) -> Encode:
            checks.check_chat(request, served.description.vocabulary_size)
            return lambda: prompts.encode_messages(served.tokenizer, request.messages)

        await self._serve(request, Call(inference_service_pb2.ChatResponse, context, hop), begin)

    async def Attach(self, request: inference_service_pb2.AttachRequest, context: Context, hop: hop_pb2.Hop) -> None:
        """Streams a request from where the caller has come to."""
        checks.check_named(request)
        self._require_deployment(request.deployment)
        run = self._requests.find(hop.principal, request.request_id)
        if not run.arrival.detaches:
            self._requests.require_client(hop.principal, request.request_id, hop.follower)
        checks.check_attach(request, run.arrival.request.sampling)
        after = {each.choice: each.output_token_count for each in request.after}
        await follow(Call(inference_service_pb2.AttachResponse, context, hop), run, after)

    async def GetRequest(
        self, request: inference_service_pb2.GetRequestRequest, _context: Context, hop: hop_pb2.Hop
    ) -> inference_service_pb2.GetRequestResponse:
        """Returns what is known of a request."""
        checks.check_named(request)
        self._require_deployment(request.deployment)
        view = self._requests.view(hop.principal, request.request_id)
        return inference_service_pb2.GetRequestResponse(request=view)

    async def ListRequests(
        self, request: inference_service_pb2.ListRequestsRequest, _context: Context, hop: hop_pb2.Hop
    ) -> inference_service_pb2.ListRequestsResponse:
        """Lists what runs or ended lately, newest first."""
        checks.check_list(request)
        self._require_deployment(request.deployment)
        return page(request, self._requests.views(hop.principal))

    async def CancelRequest(
        self, request: inference_service_pb2.CancelRequestRequest, _context: Context, hop: hop_pb2.Hop
    ) -> inference_service_pb2.CancelRequestResponse:
        """Ends a request and proves it; or keeps the receipt of one that has ended at its gateway."""
        checks.check_named(request)
        self._require_deployment(request.deployment)
        if hop.HasField("unserved"):
            kept = self._requests.keep(hop.principal, request.request_id, hop.unserved)
            return inference_service_pb2.CancelRequestResponse(receipt=kept)
        has_left = hop.cancel_cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
        cause = Cause.DISCONNECT if has_left else Cause.CLIENT
        receipt = await self._requests.cancel(hop.principal, request.request_id, cause, hop.follower)
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)

    async def _serve(self, request: Request, call: Call, begin: Begin) -> None:
        submission = Submission(request, call)
        if not detaches(request.options):  # else it is begun for whoever comes for it
            self._requests.require_client(call.hop.principal, request.request_id, call.hop.follower)
        if (run := self._known(submission)) is not None:
            await follow(call, run, submission.after, repeats=True)
        else:
            await follow(call, await self._begun(submission, begin))

    def _known(self, submission: Submission) -> Run | None:
        """Returns the run that the call asks for once more; None if it asks for a new one."""
        principal, request = submission.call.hop.principal, submission.request
        if not request.request_id:
            return None
        return self._requests.repeated(principal, request, submission.attempt, submission.words)

    async def _begun(self, submission: Submission, begin: Begin) -> Run:
        request = submission.request
        served = self._lifecycle.require_serving()
        encode = begin(served)
        self._require_deployment(request.deployment)
        line = lineage(request.options, served)
        # Only what will be taken ends a lower attempt.
        while await self._requests.supersede(submission.call.hop.principal, request.request_id, submission.attempt):
            if (run := self._known(submission)) is not None:
                return run  # another call was quicker
        arrival = submission.arrival(request.request_id or uuid.uuid4().hex, self._requests.now())
        run = self._requests.admit(arrival)
        # From here on the request can be cancelled, also while its prompt is being tokenized.
        run.end_within(submission.bounds_s())
        run.prepare(partial(self._start, submission, run, served, encode, line))
        return run

    async def _start(self, submission: Submission, run: Run, served: Served, encode: Encode, line: Lineage) -> None:
        sequences, asked = await prepared(submission, run, served, encode, line)
        run.first_fingerprint = line.fingerprint
        run.started = self._started(run, served, sequences[0])
        log = Log(asked, limit=self._requests.memory.run_log_limit)
        try:
            run.start(served.steps, sequences, log)
        except QueueFull as error:
            raise queue_full(error.waiting_count) from error
        except Stopped as error:
            message = "the engine stops and takes no new requests: pick another replica"
            raise Unreachable(message, reason=errors_pb2.ERROR_REASON_DRAINING) from error

    def _started(self, run: Run, served: Served, work: Work) -> generation_pb2.Started:
        attempt = run.arrival.attempt
        return generation_pb2.Started(
            request_id=run.arrival.request_id,
            location=views.location(self._identity, attempt),
            seed=work.sampling.seed,
            fingerprint=served.fingerprint,
            prompt_token_count=len(work.prompt),
            attempt=attempt,
            replica=self._identity.replica,
            tokenizer_fingerprint=served.tokenizer_fingerprint,
        )

    def _require_deployment(self, deployment: str) -> None:
        if deployment != self._identity.deployment:
            raise NotFound(
                f'this engine serves deployment "{self._identity.deployment}", not "{deployment}": check the name',
                resource=Resource("roundhouse.v1.Deployment", f"deployments/{deployment}"),
            )
