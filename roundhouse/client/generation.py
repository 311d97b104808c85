"""One request and its answer, as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from roundhouse.client.connection import Connection
from roundhouse.client.stream import Stream
from roundhouse.v1 import generation_pb2


class Generation(Stream[generation_pb2.GenerationEvent]):
    """An answer that is being generated.

        async with client.chat("demo", "What is 12 + 7?") as generation:
            async for delta in generation:
                print(delta.text, end="")

    The request is sent at the first use. Leaving the block or the loop before the end cancels it: the engine drops it
    before its next step. What the other events say is kept: `started` from the first event on, `finished` and `usage`
    at the end; None until then. Of several choices, `finished` is that of the first, and `finishes` has all by number.
    """

    def __init__(self, connection: Connection, start: Callable[[], Any], request_id: str) -> None:
        super().__init__(connection, start)
        self.request_id = request_id
        self.started: generation_pb2.Started | None = None
        self.finishes: dict[int, generation_pb2.Finished] = {}
        self.usage: generation_pb2.Usage | None = None

    @property
    def finished(self) -> generation_pb2.Finished | None:
        """How the first choice ended, once it has."""
        return self.finishes.get(0)

    @property
    def location(self) -> str:
        """Where the request runs: makes `Client.cancel` search less. Empty until it has started."""
        return self.started.location if self.started is not None else ""

    async def events(self) -> AsyncGenerator[generation_pb2.GenerationEvent]:
        """Yields every event as the contract has it."""
        async with aclosing(self._read()) as events:
            async for event in events:
                match event.WhichOneof("event"):
                    case "started":
                        self.started = event.started
                    case "finished":
                        self.finishes[event.finished.choice] = event.finished
                    case "usage":
                        self.usage = event.usage
                yield event

    async def __aiter__(self) -> AsyncGenerator[generation_pb2.Delta]:
        """Yields output as it comes; `delta.text` is text, `delta.token_ids` are the tokens."""
        async with aclosing(self.events()) as events:
            async for event in events:
                if event.WhichOneof("event") == "delta":
                    yield event.delta

    async def text(self) -> str:
        """Reads to the end and returns the text of what had not been read before; of several choices, of the first."""
        return (await self.texts()).get(0, "")

    async def texts(self) -> dict[int, str]:
        """Reads to the end and returns the text of each choice, of what had not been read before."""
        texts: dict[int, list[str]] = {}
        async for delta in self:
            texts.setdefault(delta.choice, []).append(delta.text)
        return {choice: "".join(pieces) for choice, pieces in sorted(texts.items())}
