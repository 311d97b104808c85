"""A network between two processes that a test cuts, slows down and mends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

_CHUNK = 64 * 1024


class TcpProxy:
    """Passes connections on to an address. `delay_s` holds every chunk back; a cut ends all and refuses new ones.

    `limits` has the bytes after which the next connections are ended, one after another, on their way back.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.delay_s = 0.0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.limits: deque[int] = deque()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[TcpProxy]:
        """Serves for the block."""
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._passing, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections, and refuses others until `mend`."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Passes on again, at once."""
        self._is_cut, self.delay_s = False, 0.0

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, there_writer}
        self._writers |= ends
        try:
            pumps = [asyncio.create_task(self._pump(reader, there_writer))]
            limit = self.limits.popleft() if self.limits else None
            pumps.append(asyncio.create_task(self._pump(there_reader, writer, limit)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None = None) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK if limit is None else max(1, limit)):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(chunk)
                await writer.drain()
                if limit is not None:
                    limit -= len(chunk)
                    if limit <= 0:
                        return
