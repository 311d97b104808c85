"""The client: one connection to a control plane, and everything that can be asked over it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from roundhouse.client.access import Access
from roundhouse.client.catalog import CachedModels, Catalog
from roundhouse.client.connection import Connection
from roundhouse.client.deployments import Deployments
from roundhouse.client.events import Events
from roundhouse.client.following import Following
from roundhouse.client.generation import Generation
from roundhouse.client.leaving import Leaving
from roundhouse.client.names import deployment_id
from roundhouse.client.nodes import Nodes
from roundhouse.client.pages import all_pages
from roundhouse.client.replicas import Replicas
from roundhouse.client.requests import (
    GenerationOptions,
    Messages,
    Prompt,
    checked,
    messages,
    prompt_parts,
    request_options,
    sampling,
)
from roundhouse.client.seen import Seen
from roundhouse.client.submission import Request, Submission
from roundhouse.v1 import inference_service_pb2, receipt_pb2, request_pb2
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50050"
UNARY_TIMEOUT_S = 30.0  # a creation may wait 5 s for nodes to look at a model; all else takes milliseconds


class Client:
    """Talks to the control plane at `HOST:PORT`, in the clear or, given the PEM file of an authority, with TLS.

        async with Client() as client:
            async with client.chat("demo", "What is 12 + 7?") as generation:
                print(await generation.text())

    Of several gateways, as a sequence or with commas, it uses the first that answers, and the next when that breaks.
    `token` is what a control plane that asks for one knows the caller by; it goes over TLS, or stays on this machine.
    `timeout_s` bounds each call with a single answer. Streams last until they end or are left.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        ca: str | Path | None = None,
        token: str | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> None:
        authority = None if ca is None else Path(ca)
        self._connection = Connection(address, ca=authority, token=token, timeout_s=timeout_s)
        self._leaving = Leaving(self._connection)
        self._opened: set[Generation] = set()
        self.deployments = Deployments(self._connection)
        self.replicas = Replicas(self._connection)
        self.nodes = Nodes(self._connection)
        self.events = Events(self._connection)
        self.catalog = Catalog(self._connection)
        self.cached_models = CachedModels(self._connection)
        self.access = Access(self._connection)

    @property
    def address(self) -> str:
        """The address in use."""
        return self._connection.address

    async def __aenter__(self) -> Self:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for each in list(self._opened):
                each.leave()
            await self._leaving.close()
        finally:
            await self._connection.close()

    def generate(
        self, deployment: str, prompt: Prompt, *, echo: bool = False, **options: Unpack[GenerationOptions]
    ) -> Generation:
        """Returns the continuation of a prompt of text or of token ids, to be entered or looped over."""
        request = inference_service_pb2.GenerateRequest(
            deployment=deployment_id(deployment),
            prompt=prompt_parts(prompt),
            sampling=sampling(options),
            options=request_options(options),
            echo=echo,
        )
        return self._submit(request, options)

    def chat(self, deployment: str, conversation: Messages, **options: Unpack[GenerationOptions]) -> Generation:
        """Returns the answer to a conversation, or to one message of the user, to be entered or looped over."""
        request = inference_service_pb2.ChatRequest(
            deployment=deployment_id(deployment),
            messages=messages(conversation),
            sampling=sampling(options),
            options=request_options(options),
        )
        return self._submit(request, options)

    def attach(
        self,
        deployment: str,
        request_id: str,
        location: str = "",
        *,
        after: Mapping[int, int] | None = None,
        timeout_s: float | None = None,
    ) -> Generation:
        """Returns the rest of a request that runs or ended lately, whoever sent it, to be entered or looped over.

        after: tokens of each choice that are known already; those that are not named are told from the beginning.
        Leaving it ends the request only if nobody else follows it and it was sent so; `cancel` does in any case.
        Raises InvalidArgument for an `after` that the contract cannot hold.
        """
        target = inference_service_pb2.AttachRequest(
            deployment=deployment_id(deployment), request_id=request_id, location=location
        )
        seen = Seen(after=after, may_differ=True)
        target.after.extend(checked("after", seen.after))
        return self._generation(target, seen, timeout_s=timeout_s)

    async def cancel(self, deployment: str, request_id: str, location: str = "") -> receipt_pb2.CancelReceipt:
        """Ends a request, whoever started it, and returns what that proved. `location` makes the search shorter."""
        request = inference_service_pb2.CancelRequestRequest(
            deployment=deployment_id(deployment), request_id=request_id, location=location
        )
        stub = self._connection.stub(InferenceServiceStub)
        response: inference_service_pb2.CancelRequestResponse = await self._connection.unary(
            stub.CancelRequest, request
        )
        return response.receipt

    async def request(self, deployment: str, request_id: str, location: str = "") -> request_pb2.InferenceRequest:
        """Returns what is known of a request, with its receipt if it has ended."""
        request = inference_service_pb2.GetRequestRequest(
            deployment=deployment_id(deployment), request_id=request_id, location=location
        )
        stub = self._connection.stub(InferenceServiceStub)
        response: inference_service_pb2.GetRequestResponse = await self._connection.unary(stub.GetRequest, request)
        return response.request

    async def requests(
        self, deployment: str, states: Sequence[request_pb2.RequestState] = ()
    ) -> inference_service_pb2.ListRequestsResponse:
        """Returns the caller's requests that run or ended lately, newest first, all pages in one."""

        async def fetch(token: str) -> inference_service_pb2.ListRequestsResponse:
            request = inference_service_pb2.ListRequestsRequest(
                deployment=deployment_id(deployment), page_token=token, states=states
            )
            stub = self._connection.stub(InferenceServiceStub)
            page: inference_service_pb2.ListRequestsResponse = await self._connection.unary(stub.ListRequests, request)
            return page

        return await all_pages(fetch, "requests")

    def _submit(self, request: Request, options: GenerationOptions) -> Generation:
        request.request_id = options.get("request_id") or uuid.uuid4().hex
        target = inference_service_pb2.AttachRequest(deployment=request.deployment, request_id=request.request_id)
        submission = Submission(request)
        seen = Seen(resumed=options.get("resume"), may_differ=submission.may_differ)
        return self._generation(target, seen, submission=submission, timeout_s=options.get("timeout_s"))

    def _generation(
        self,
        target: inference_service_pb2.AttachRequest,
        seen: Seen,
        *,
        submission: Submission | None = None,
        timeout_s: float | None = None,
    ) -> Generation:
        following = Following(self._connection, target, seen, submission=submission, timeout_s=timeout_s)
        return Generation(following, seen, self._leaving, self._opened, target, is_ours=submission is not None)
