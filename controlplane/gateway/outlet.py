"""Where a stream's messages go: to its client, as fast as it reads, joined while it does not keep up."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from controlplane.gateway.engines import Metadata
from roundhouse.kit.errors import Unreachable

JOINED = 32 * 1024  # bytes of one message; more makes none cheaper
HELD = 128 * 1024  # bytes that wait for the client before its engine has to
STALLED_S = 60.0  # a client that has read nothing for so long holds up what others could use


class Stalled(Unreachable):
    """The client is there and does not read."""

    def __init__(self, stalled_s: float) -> None:
        super().__init__(f"nothing was read for {stalled_s:g} s: attach again, and read faster")


class Outlet:
    """Takes serialized responses, which hold repeated fields alone, so that joining them joins their events.

    Nothing raises when the client is gone: whoever relays learns that from the call, and may go on without it. Stalled
    is raised when it reads no more.
    """

    def __init__(self, context: Any, *, stalled_s: float = STALLED_S) -> None:
        self._context, self._stalled_s = context, stalled_s
        self._is_stalled = False
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._writing: asyncio.Task[None] | None = None
        self._metadata: Metadata | None = None  # that is yet to be sent
        self._has_begun = False
        self._is_closed = False

    def begin(self, metadata: Metadata) -> None:
        """Sends the initial metadata, once, before all else. What comes meanwhile is joined behind it."""
        if not self._has_begun and not self._is_closed:
            self._has_begun, self._metadata = True, metadata
            self._start()

    async def put(self, message: bytes) -> None:
        """Sends a message, now or with the next. Waits only if much is waiting."""
        self._check()
        if self._is_closed or not message:
            return
        self._waiting.append(message)
        self._size += len(message)
        if self._writing is None:
            self._start()
        elif self._size > HELD:
            await self.flush()

    async def flush(self) -> None:
        """Waits until all is written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._check()

    def close(self) -> None:
        """Drops what is waiting and what is yet to come."""
        self._drop()
        if self._writing is not None:
            self._writing.cancel()

    def _start(self) -> None:
        self._writing = asyncio.create_task(self._write(), name="relay to the client")

    async def _write(self) -> None:
        try:
            if self._metadata is not None:
                metadata, self._metadata = self._metadata, None
                await self._try(self._context.send_initial_metadata(metadata))
            while self._waiting and not self._is_closed:
                await self._try(self._context.write(self._next()))
        finally:
            self._writing = None

    def _next(self) -> bytes:
        first = self._waiting.popleft()
        size, joined = len(first), [first]
        while self._waiting and size + len(self._waiting[0]) <= JOINED:
            joined.append(self._waiting.popleft())
            size += len(joined[-1])
        self._size -= size
        return first if len(joined) == 1 else b"".join(joined)

    async def _try(self, sending: Any) -> None:
        try:
            async with asyncio.timeout(self._stalled_s):
                await sending
        except TimeoutError:
            self._is_stalled = not self._is_closed
            self._drop()
        except Exception:  # noqa: BLE001 - gRPC has many ways to say that nobody is there
            self._drop()

    def _check(self) -> None:
        if self._is_stalled:
            raise Stalled(self._stalled_s)

    def _drop(self) -> None:
        self._is_closed = True
        self._waiting.clear()
