"""One call for a generation, as it came."""

from __future__ import annotations

from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.service import Context
from roundhouse.kit.times import from_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2

# The transport and our own timer watch the same deadline; whichever is first, the cause is the deadline.
DEADLINE_TOLERANCE_S = 0.05
LONGEST_S = 86_400.0 * 365  # timers of the system end at some 9e9 s; no engine lives as long as this

Request = inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest
Response = type[inference_service_pb2.GenerateResponse] | type[inference_service_pb2.ChatResponse]


class Call:
    """Its request, who sent it, and the way back."""

    def __init__(self, request: Request, response: Response, context: Context, hop: hop_pb2.Hop) -> None:
        self.request = request
        self.context = context
        self.hop = hop
        self.prompt_field = "messages" if isinstance(request, inference_service_pb2.ChatRequest) else "prompt"
        self.wants_echo = isinstance(request, inference_service_pb2.GenerateRequest) and request.echo
        self._response = response
        self._remaining_s: float | None = context.time_remaining()

    def bounds_s(self) -> list[float]:
        """Returns after how long the request has to end, by its call's deadline and by its own wish."""
        bounds_s = [] if self._remaining_s is None else [min(self._remaining_s, LONGEST_S)]
        if self.request.options.HasField("max_duration"):
            bounds_s.append(min(from_duration(self.request.options.max_duration), LONGEST_S))
        return bounds_s

    def is_overdue(self, age_s: float) -> bool:
        """Tells whether the deadline of the call has passed, so long after it arrived."""
        return self._remaining_s is not None and age_s >= self._remaining_s - DEADLINE_TOLERANCE_S

    async def write(self, events: list[generation_pb2.GenerationEvent]) -> None:
        """Sends events as one message; nothing if there are none."""
        if events:
            await self.context.write(self._response(events=events))
