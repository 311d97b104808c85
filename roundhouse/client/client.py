"""The client: one connection to a control plane, and everything that can be asked over it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from roundhouse.client.access import Access
from roundhouse.client.catalog import CachedModels, Catalog
from roundhouse.client.connection import Connection
from roundhouse.client.deployments import Deployments
from roundhouse.client.events import Events
from roundhouse.client.generation import Generation
from roundhouse.client.names import deployment_id
from roundhouse.client.nodes import Nodes
from roundhouse.client.replicas import Replicas
from roundhouse.client.requests import (
    GenerationOptions,
    Messages,
    Prompt,
    messages,
    prompt_parts,
    request_options,
    sampling,
)
from roundhouse.v1 import inference_service_pb2, receipt_pb2
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50050"
UNARY_TIMEOUT_S = 30.0  # a creation may wait 5 s for nodes to look at a model; all else takes milliseconds


class Client:
    """Talks to the control plane at `HOST:PORT`, in the clear or, given the PEM file of an authority, with TLS.

        async with Client() as client:
            async with client.chat("demo", "What is 12 + 7?") as generation:
                print(await generation.text())

    `token` is what a control plane that asks for one knows the caller by; it goes over TLS, or stays on this machine.
    `timeout_s` bounds each call with a single answer. Streams last until they end or are left.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        ca: str | Path | None = None,
        token: str | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> None:
        self.address = address
        authority = None if ca is None else Path(ca)
        self._connection = Connection(address, ca=authority, token=token, timeout_s=timeout_s)
        self.deployments = Deployments(self._connection)
        self.replicas = Replicas(self._connection)
        self.nodes = Nodes(self._connection)
        self.events = Events(self._connection)
        self.catalog = Catalog(self._connection)
        self.cached_models = CachedModels(self._connection)
        self.access = Access(self._connection)

    async def __aenter__(self) -> Self:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        return self._generation(lambda stub: stub.Generate, request, options)

    def chat(self, deployment: str, conversation: Messages, **options: Unpack[GenerationOptions]) -> Generation:
        """Returns the answer to a conversation, or to one message of the user, to be entered or looped over."""
        request = inference_service_pb2.ChatRequest(
            deployment=deployment_id(deployment),
            messages=messages(conversation),
            sampling=sampling(options),
            options=request_options(options),
        )
        return self._generation(lambda stub: stub.Chat, request, options)

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

    def _generation(
        self, method: Callable[[InferenceServiceStub], Any], request: Any, options: GenerationOptions
    ) -> Generation:
        request.request_id = options.get("request_id") or uuid.uuid4().hex
        timeout_s = options.get("timeout_s")
        return Generation(
            self._connection,
            lambda: method(self._connection.stub(InferenceServiceStub))(request, timeout=timeout_s),
            request.request_id,
        )
