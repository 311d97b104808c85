"""One call for a generation, as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from engines.service.arrival import Arrival, Request, detaches, without_prompt, words_of
from engines.service.works import choice_count
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.service import Context
from roundhouse.kit.times import from_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2

# The transport and our own timer watch the same deadline; whichever is first, the cause is the deadline.
DEADLINE_TOLERANCE_S = 0.05
LONGEST_S = 86_400.0 * 365  # timers of the system end at some 9e9 s; no engine lives as long as this

Response = (
    type[inference_service_pb2.GenerateResponse]
    | type[inference_service_pb2.ChatResponse]
    | type[inference_service_pb2.AttachResponse]
)


class Call:
    """Who calls, and the way back."""

    def __init__(self, response: Response, context: Context, hop: hop_pb2.Hop) -> None:
        self.context = context
        self.hop = hop
        self.remaining_s: float | None = context.time_remaining()
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._arrival_s = self._loop.time()

    def is_overdue(self) -> bool:
        """Tells whether the deadline of the call has passed."""
        age_s = self._loop.time() - self._arrival_s
        return self.remaining_s is not None and age_s >= self.remaining_s - DEADLINE_TOLERANCE_S

    async def write(self, events: list[generation_pb2.GenerationEvent], kept: hop_pb2.Kept | None = None) -> None:
        """Sends events as one message, with what only a keeper is told."""
        if kept is None:
            await self.context.write(self._response(events=events))
        else:
            await self.context.write(hop_pb2.KeptResponse(events=events, kept=kept))


class Submission:
    """A call that brings a request."""

    def __init__(self, request: Request, call: Call) -> None:
        self.request = request
        self.call = call
        self.prompt_field = "messages" if isinstance(request, inference_service_pb2.ChatRequest) else "prompt"
        self.wants_echo = isinstance(request, inference_service_pb2.GenerateRequest) and request.echo
        self.words = words_of(request) if request.request_id else b""

    def arrival(self, request_id: str, time_s: float) -> Arrival:
        """Returns what of it is kept. time_s: now, since 1970."""
        hop = self.call.hop
        return Arrival(
            principal=hop.principal,
            request_id=request_id,
            request=without_prompt(self.request),
            attempt=self.attempt,
            choice_count=choice_count(self.request.sampling),
            words=hop.words or self.words,
            time_s=time_s,
        )

    @property
    def after(self) -> Mapping[int, int]:
        """Where it begins in a run that is there already: behind its own output. Who goes on there began later."""
        return {each.choice: len(each.output_token_ids.ids) for each in self.request.options.resume.choices}

    @property
    def attempt(self) -> int:
        """Which run of the request it wants, from 1."""
        return self.call.hop.attempt or 1

    def bounds_s(self) -> list[float]:
        """Returns after how long the request has to end, by its call's deadline and by its own wish."""
        options, remaining_s = self.request.options, self.call.remaining_s
        bounds_s = [] if remaining_s is None or detaches(options) else [min(remaining_s, LONGEST_S)]
        if options.HasField("max_duration"):
            bounds_s.append(min(from_duration(options.max_duration), LONGEST_S))
        return bounds_s
