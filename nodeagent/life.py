"""Follows one life of an engine, from the moment its process runs to its end, and ends it when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import structlog

from nodeagent.bundle import Bundle
from nodeagent.hearing import Hearing, Status
from nodeagent.launch import Started
from nodeagent.model import Exit, Timing
from nodeagent.process import end_session
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.status import error_of

log = structlog.get_logger()

_AGAIN = Backoff(first_s=0.1, cap_s=5.0)


class Life:
    """One engine process. A context manager: leaving it lets go of the process, which runs on.

    has_served: it has been READY, as far as an earlier agent knew.
    """

    def __init__(
        self, started: Started, tell: Callable[[Status], None], *, timing: Timing, has_served: bool = False
    ) -> None:
        self.bundle: Bundle = started.bundle
        self.spec: engine_spec_pb2.EngineBundle = started.spec
        self.key = started.key
        self.identity = started.process.identity
        self._process, self._timing = started.process, timing
        self._hearing = Hearing(started, tell, timing, has_served=has_served)

    async def __aenter__(self) -> Life:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._process.release()
        await self._hearing.__aexit__(*exception)

    @property
    def status(self) -> Status:
        """Returns what the engine last said."""
        return self._hearing.status

    async def follow(self) -> tuple[Exit, str]:
        """Tells what the engine says until its process has ended; returns how, and why if it was we who ended it.

        It is ended if it does not prove to be the engine that was started. Descendants may still run; `sweep` ends
        them. Cancelling leaves everything as it is.
        """
        exited = asyncio.create_task(self._process.wait(), name="engine exit")
        listening = asyncio.create_task(self._hearing.listen(), name="engine status")
        trimming = asyncio.create_task(self._trim_logs(), name="engine logs")
        try:
            await asyncio.wait({exited, listening}, return_when=asyncio.FIRST_COMPLETED)
            fault = ""
            if not exited.done():
                error = listening.exception()
                fault = str(error)
                log.error("engine is ended", replica=self.spec.replica, error=fault, exc_info=error)
                await self.sweep()
            return await exited, fault
        finally:
            tasks = (exited, listening, trimming)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, grace_s: float, *, hands_over: bool = False) -> None:
        """Drains, then SIGTERM, then SIGKILL; returns when no process is left. May be cancelled and repeated."""
        if (calls := self._hearing.calls) is not None:
            try:
                await calls.drain(grace_s, hands_over=hands_over)
            except grpc.RpcError as error:
                log.warning("engine does not drain", replica=self.spec.replica, error=str(error_of(error)))
            except Exception as error:
                # Whatever is wrong with asking, the engine is to end.
                log.error("draining an engine failed", replica=self.spec.replica, exc_info=error)
        await self.sweep()

    async def sweep(self) -> None:
        """Ends what is left of the engine's session. Does not give up: what is not known to be gone may go on."""
        attempt = 0
        while True:
            try:
                return await end_session(self.identity, self._timing.term_grace_s)
            except Exception as error:
                log.error("an engine could not be ended, and is tried again", replica=self.spec.replica, exc_info=error)
            await asyncio.sleep(_AGAIN.delay_s(attempt))
            attempt += 1

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(self._timing.trim_period_s)
            try:
                await asyncio.to_thread(self.bundle.trim_logs)
            except Exception as error:
                log.error("the logs of an engine cannot be cut", replica=self.spec.replica, exc_info=error)
