"""Inference that plays a script: the answer repeats the prompt, word by word.

A prompt of `break` ends the stream with an error after one word, `wait` says nothing and waits. With `ignore_eos` the
words go on until `max_tokens`, or for ever. Of several choices, those behind the first put their number to each word. A
word `corrupt` has the answer end with the hash of another one; behind `unheard-of` comes an event that nobody knows.

A request is kept with all that it told, so that it can be attached to. `lose`, or a word `lost` in its first attempt,
has it forgotten, as when its engine has died. One that goes on behind output that exists is another attempt, elsewhere.
"""

from __future__ import annotations

import asyncio
import copy

from roundhouse.kit.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, NotReady, TooLong, Unreachable
from roundhouse.kit.service import Context
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2, request_pb2
from tests.support.scripted_run import Event, Request, Run

CONTEXT_TOKENS = 2048

Response = (
    inference_service_pb2.GenerateResponse | inference_service_pb2.ChatResponse | inference_service_pb2.AttachResponse
)


class ScriptedInference:
    """InferenceService.

    `arrived` tells the ids of requests, `left` those whose callers went away, `cancelled` those of CancelRequest.
    """

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self.left: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.requests: list[Request] = []
        self.attached: list[inference_service_pb2.AttachRequest] = []
        self.runs: dict[str, Run] = {}
        self.fingerprint_differs = False
        self.gap = 0  # tokens that whoever attaches is not told
        self.refusal: Exception | None = None  # what whoever attaches is told in place of a request

    async def Generate(self, request: inference_service_pb2.GenerateRequest, context: Context) -> None:
        prompt = "".join(part.text or " ".join(map(str, part.token_ids.ids)) for part in request.prompt)
        await self._serve(request, prompt, inference_service_pb2.GenerateResponse, context)

    async def Chat(self, request: inference_service_pb2.ChatRequest, context: Context) -> None:
        prompt = "".join(part.text for part in request.messages[-1].content)
        await self._serve(request, prompt, inference_service_pb2.ChatResponse, context)

    async def Attach(self, request: inference_service_pb2.AttachRequest, context: Context) -> None:
        self._check(request.deployment)
        copied = inference_service_pb2.AttachRequest()
        copied.CopyFrom(request)
        self.attached.append(copied)
        if self.refusal is not None:
            raise self.refusal
        run = self._find(request.request_id)
        after = {each.choice: each.output_token_count + self.gap for each in request.after}
        await self._follow(run, after, inference_service_pb2.AttachResponse, context)

    async def GetRequest(
        self, request: inference_service_pb2.GetRequestRequest, context: Context
    ) -> inference_service_pb2.GetRequestResponse:
        self._check(request.deployment)
        return inference_service_pb2.GetRequestResponse(request=self._shown(self._find(request.request_id)))

    async def ListRequests(
        self, request: inference_service_pb2.ListRequestsRequest, context: Context
    ) -> inference_service_pb2.ListRequestsResponse:
        self._check(request.deployment)
        newest_first = sorted(self.runs.values(), key=lambda each: -each.arrival_s)
        shown = [self._shown(each) for each in newest_first]
        if request.states:
            shown = [each for each in shown if each.state in request.states]
        start = int(request.page_token or 0)  # pages of two, so that every client has to turn them
        return inference_service_pb2.ListRequestsResponse(
            requests=shown[start : start + 2], next_page_token=str(start + 2) if len(shown) > start + 2 else ""
        )

    async def CancelRequest(
        self, request: inference_service_pb2.CancelRequestRequest, context: Context
    ) -> inference_service_pb2.CancelRequestResponse:
        self._check(request.deployment)
        self.cancelled.put_nowait(request.request_id)
        receipt = receipt_pb2.CancelReceipt(deployment=request.deployment, request_id=request.request_id)
        run = self.runs.get(request.request_id)
        if request.request_id == "ghost":
            receipt.outcome = receipt_pb2.CANCEL_OUTCOME_UNPROVEN
            receipt.unreachable.append("deployments/demo/replicas/1")
        elif run is None:
            receipt.outcome = receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED
        else:
            run.ended.set()
            receipt.MergeFrom(self._receipt(run))
        return inference_service_pb2.CancelRequestResponse(receipt=receipt)

    def lose(self, request_id: str) -> bool:
        """Forgets a request that runs, as if its engine had died and nobody else had kept it; tells whether it did."""
        return self.runs[request_id].lose()

    # ---------------------------------------------------------------------------------------------------- private

    async def _serve(self, request: Request, prompt: str, response: type[Response], context: Context) -> None:
        self._check(request.deployment)
        self.requests.append(request)
        run = self.runs.get(request.request_id)
        if run is None or run.is_lost:
            run = self._begin(request, prompt, 1 if run is None else run.attempt + 1)
        elif _words(run.request) != _words(request):
            raise AlreadyExists("other words", reason=errors_pb2.ERROR_REASON_REQUEST_EXISTS)
        await self._follow(run, {}, response, context)

    def _begin(self, request: Request, prompt: str, attempt: int) -> Run:
        if len(prompt.split(" ")) > CONTEXT_TOKENS:
            raise TooLong(f"the prompt has {len(prompt.split(' '))} tokens, the context {CONTEXT_TOKENS}: shorten it")
        resume = request.options.resume
        is_approximate = request.options.failover == generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK
        if self.fingerprint_differs and resume.fingerprint and not is_approximate:
            raise NotReady("another engine", reason=errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS)
        if request.sampling.best_of > max(1, request.sampling.n) and any(
            each.output_token_ids.ids for each in resume.choices
        ):
            raise InvalidArgument("options.resume: not with best_of")
        run = Run(request, prompt, attempt)
        self.runs[request.request_id] = run
        run.task = asyncio.create_task(run.play())
        self.arrived.put_nowait(request.request_id)
        return run

    async def _follow(self, run: Run, after: dict[int, int], response: type[Response], context: Context) -> None:
        run.followers += 1
        told = 0
        try:
            await context.write(response(events=[run.started]))
            async for _ in run.changes.watch():
                while told < len(run.told):
                    event = run.told[told]
                    told += 1
                    if not _is_known(event, after):
                        await context.write(response(events=[event]))
                if run.error is not None:
                    raise run.error
                if run.is_over:
                    return
        except asyncio.CancelledError:
            self.left.put_nowait(run.request.request_id)
            if not run.is_detached and run.followers == 1 and run.task is not None:
                run.task.cancel()
            raise
        finally:
            run.followers -= 1

    def _find(self, request_id: str) -> Run:
        run = self.runs.get(request_id)
        if run is None:
            raise NotFound(f'request "{request_id}" is unknown', reason=errors_pb2.ERROR_REASON_REQUEST_NOT_FOUND)
        if run.is_lost:
            raise Conflict("its engine is gone", reason=errors_pb2.ERROR_REASON_REQUEST_LOST)
        return run

    def _shown(self, run: Run) -> request_pb2.InferenceRequest:
        started = run.started.started
        return request_pb2.InferenceRequest(
            deployment=run.request.deployment,
            request_id=run.request.request_id,
            state=request_pb2.REQUEST_STATE_ENDED if run.is_over else request_pb2.REQUEST_STATE_RUNNING,
            location=started.location,
            replica=started.replica,
            attempt=run.attempt,
            positions=[
                receipt_pb2.ChoicePosition(choice=choice, output_token_count=count)
                for choice, count in sorted(run.positions.items())
            ],
            prompt_token_count=len(run.words),
            arrival_time=to_timestamp(run.arrival_s),
            priority=run.request.options.priority,
            labels=run.request.options.labels,
            on_disconnect=run.request.options.on_disconnect,
            follower_count=run.followers,
            finishes=[each.finished for each in run.told if each.HasField("finished")],
            receipt=self._receipt(run) if run.is_over else None,
        )

    @staticmethod
    def _receipt(run: Run) -> receipt_pb2.CancelReceipt:
        is_cancelled = run.ended.is_set()
        return receipt_pb2.CancelReceipt(
            deployment=run.request.deployment,
            request_id=run.request.request_id,
            outcome=(
                receipt_pb2.CANCEL_OUTCOME_CANCELLED if is_cancelled else receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
            ),
            level=receipt_pb2.CANCEL_LEVEL_FREED,
            cause=receipt_pb2.CANCEL_CAUSE_CLIENT if is_cancelled else receipt_pb2.CANCEL_CAUSE_UNSPECIFIED,
            prompt_token_count=5,
            output_token_count=run.positions.get(0, 0),
            freed_block_count=3,
            free_block_count_before=97,
            free_block_count=100,
            total_block_count=100,
            elapsed=to_duration(0.0021),
            replica="deployments/demo/replicas/0",
        )

    def _check(self, deployment: str) -> None:
        if deployment == "asleep":
            raise Unreachable('deployment "asleep" has no replica that is READY: wait for one', retry_after_s=1.0)
        if deployment != "demo":
            raise NotFound(f'deployment "{deployment}" is unknown: list them, or create it')


def _words(request: Request) -> bytes:
    said = copy.deepcopy(request)
    said.options.ClearField("max_duration")  # whose rest is written down at each hop
    return said.SerializeToString(deterministic=True)


def _is_known(event: Event, after: dict[int, int]) -> bool:
    match event.WhichOneof("event"):
        case "delta":
            return event.delta.first_position < after.get(event.delta.choice, 0)
        case "prompt":
            return bool(after)
    return False
