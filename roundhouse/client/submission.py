"""A request as it was sent, and as it is sent again when nobody has it any more."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from roundhouse.client.seen import Seen
from roundhouse.kit.times import from_duration, to_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

Request = inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest

_LEAST_S = 0.001  # that time is up is for the server to say


@dataclass(frozen=True, slots=True)
class Submission:
    """One request, of whichever kind."""

    request: Request

    @property
    def is_detached(self) -> bool:
        """Tells whether the request outlives a connection that breaks."""
        return self.request.options.on_disconnect.policy == generation_pb2.DISCONNECT_POLICY_DETACH

    @property
    def may_resume(self) -> bool:
        """Tells whether another engine may go on behind what was seen."""
        return self.request.options.failover != generation_pb2.FAILOVER_POLICY_NEVER

    @property
    def may_differ(self) -> bool:
        """Tells whether an engine may go on that does not give the same."""
        return self.request.options.failover == generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK

    def outlives(self, timeout_s: float | None) -> bool:
        """Tells whether the request may go on when a call with this deadline is over."""
        bound = self.request.options.max_duration
        return self.is_detached and timeout_s is not None and from_duration(bound) > timeout_s

    def start(self, stub: InferenceServiceStub, seen: Seen, *, elapsed_s: float, timeout_s: float | None) -> Any:
        """Returns the call that sends the request, to go on behind what was seen.

        Before anything was, the same words under the same id: if they did arrive, that attaches to the request. What is
        left of its `max_duration` is not of the words. elapsed_s: since it was sent first; 0 the first time.
        """
        request = self._again(seen, elapsed_s) if elapsed_s else self.request
        is_chat = isinstance(request, inference_service_pb2.ChatRequest)
        return (stub.Chat if is_chat else stub.Generate)(request, timeout=timeout_s)

    def _again(self, seen: Seen, elapsed_s: float) -> Request:
        request = copy.deepcopy(self.request)
        if request.options.HasField("max_duration"):
            left_s = from_duration(request.options.max_duration) - elapsed_s
            request.options.max_duration.CopyFrom(to_duration(max(_LEAST_S, left_s)))
        if seen.started is not None:
            self._resume(request, seen)
        return request

    @staticmethod
    def _resume(request: Request, seen: Seen) -> None:
        options, sampling = request.options, request.sampling
        options.resume.CopyFrom(seen.resume())
        if sampling.best_of > max(1, sampling.n):  # of which nothing is told before all is known: it is made again
            del options.resume.choices[:]
            return
        if seen.has_output:
            sampling.ClearField("prompt_logprobs")
            if isinstance(request, inference_service_pb2.GenerateRequest):
                request.echo = False
