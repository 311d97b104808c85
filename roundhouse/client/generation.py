"""One request and its answer, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from roundhouse.client.following import Following
from roundhouse.client.leaving import ComingReceipt, Leaving
from roundhouse.client.seen import Seen
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2


class Generation:
    """An answer that is being generated.

        async with client.chat("demo", "What is 12 + 7?") as generation:
            async for delta in generation:
                print(delta.text, end="")

    The request is sent at the first use. Leaving the block or the loop before the end cancels it: the engine drops it
    before its next step. One that was attached to is only left, and what becomes of it is for those who sent it to say.

    It survives connections and gateways: when one breaks it goes on at the next, and tells everything once. What is
    told is checked against the engine's own hash of it; TokensDiffer is raised where they differ.

    What the other events say is kept: `started` from the first event on, `finished` and `usage` at the end; None until
    then. Of several choices, `finished` is that of the first, and `finishes` has all by number.
    """

    def __init__(
        self,
        following: Following,
        seen: Seen,
        leaving: Leaving,
        opened: set[Generation],
        target: inference_service_pb2.AttachRequest,
        *,
        is_ours: bool,
    ) -> None:
        """opened: holds those that may have to be left. is_ours: the request was sent here, not attached to."""
        self._following, self._seen, self._leaving, self._opened = following, seen, leaving, opened
        self._target, self._is_ours = target, is_ours
        self._coming: ComingReceipt | None = None
        self.request_id = target.request_id

    @property
    def started(self) -> generation_pb2.Started | None:
        """The first event, once it has come."""
        return self._seen.started

    @property
    def finishes(self) -> dict[int, generation_pb2.Finished]:
        """How the choices ended that have, by number; `exactness` says if they are as if nothing had happened."""
        return self._seen.finishes

    @property
    def finished(self) -> generation_pb2.Finished | None:
        """How the first choice ended, once it has."""
        return self.finishes.get(0)

    @property
    def usage(self) -> generation_pb2.Usage | None:
        """What it cost, once it has ended."""
        return self._seen.usage

    @property
    def resumes(self) -> list[generation_pb2.Resumed]:
        """The times that another engine went on, so far."""
        return self._seen.resumes

    @property
    def positions(self) -> dict[int, int]:
        """How many tokens of each choice were told, as `Client.attach` takes it."""
        return self._seen.positions()

    @property
    def location(self) -> str:
        """Where the request runs: makes others search less. Empty until it has started."""
        return self._seen.location

    def cancel(self) -> None:
        """Ends the request, unless it has ended; a loop over it then ends as if nothing more had come."""
        if self._leave():
            request = inference_service_pb2.CancelRequestRequest(
                deployment=self._target.deployment, request_id=self.request_id, location=self.location
            )
            self._coming = self._leaving.cancel(request, self._following.place)

    def detach(self) -> None:
        """Leaves the request to go on by itself, for as long as `detach_s` said, or to others that follow it.

        Before the block or the loop is left: that cancels. `Client.attach` comes back to it.
        """
        self._leave()

    def leave(self) -> None:
        """Does what leaving the block does: cancels what was sent here, and detaches from what was attached to."""
        if self._is_ours:
            self.cancel()
        else:
            self.detach()

    async def left(self) -> receipt_pb2.CancelReceipt | None:
        """Returns the receipt of the cancel that leaving has sent, once there is one; None if there will be none.

        A program need not wait for that: closing the client does, for two seconds at most.
        """
        return None if self._coming is None else await asyncio.shield(self._coming)

    async def events(self) -> AsyncGenerator[generation_pb2.GenerationEvent]:
        """Yields every event as the contract has it; `resumed` among them if another engine went on."""
        if self._following.is_over:
            return
        self._opened.add(self)
        try:
            async with aclosing(self._following.events()) as events:
                async for event in events:
                    yield event
        finally:
            self.leave()

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

    async def __aenter__(self) -> Self:
        await self._following.begin()
        self._opened.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def _leave(self) -> bool:
        """Ends the call; returns whether the request may go on."""
        may_run = self._following.has_begun and not self._following.is_over
        self._following.leave()
        self._opened.discard(self)
        return may_run
