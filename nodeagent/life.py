"""Follows one life of an engine, from the moment its process runs to its end, and ends it when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc
import structlog

from nodeagent.bundle import Bundle
from nodeagent.dial import EngineCalls
from nodeagent.launch import Started
from nodeagent.model import Exit, State
from nodeagent.process import end_session
from roundhouse.internal.v1 import engine_service_pb2, engine_spec_pb2
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.channel import cancelling
from roundhouse.kit.status import error_of
from roundhouse.v1 import deployment_pb2, errors_pb2

log = structlog.get_logger()

LISTEN_WITHIN_S = 600.0  # from its start to its proof that it is ours; loading the model is not in it
TERM_GRACE_S = 5.0  # after a drain there is nothing left to do but to exit
_LOOK_S = 0.05  # a file cannot be waited for without a dependency, and this one comes once
_ANSWER_S = 10.0
_SILENCE_S = 10.0  # beyond the period: status comes from a thread of its own, whatever the model does
_TRIM_S = 10.0
_AGAIN = Backoff(first_s=0.1, cap_s=5.0)
_NOT_OURS = (errors_pb2.ERROR_REASON_WRONG_ENGINE, errors_pb2.ERROR_REASON_ENGINE_KEY_INVALID)
_STATES = {
    engine_service_pb2.ENGINE_STATE_SERVING: State.READY,
    engine_service_pb2.ENGINE_STATE_DRAINING: State.DRAINING,
}


@dataclass(frozen=True, slots=True)
class Status:
    """What an engine last said of itself."""

    state: State
    message: str
    address: str = ""
    load: deployment_pb2.EngineLoad | None = None
    fingerprint: str = ""


class Unfit(Exception):
    """The process does not prove to be the engine that was started."""


class Life:
    """One engine process. A context manager: leaving it lets go of the process, which runs on."""

    def __init__(
        self, started: Started, tell: Callable[[Status], None], *, watch_period_s: float, term_grace_s: float
    ) -> None:
        self.bundle: Bundle = started.bundle
        self.spec: engine_spec_pb2.EngineBundle = started.spec
        self.key = started.key
        self.identity = started.process.identity
        self._process = started.process
        self._tell, self._watch_period_s, self._term_grace_s = tell, watch_period_s, term_grace_s
        self._status = Status(State.STARTING, "the process runs and has not answered yet")
        self._calls: EngineCalls | None = None
        self._failures = 0  # of watching, since the engine last said something
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Life:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.release()
        await self._closing.aclose()

    @property
    def status(self) -> Status:
        """Returns what the engine last said."""
        return self._status

    async def follow(self) -> tuple[Exit, str]:
        """Tells what the engine says until its process has ended; returns how, and why if it was we who ended it.

        It is ended if it does not prove to be the engine that was started. Descendants may still run; `sweep` ends
        them. Cancelling leaves everything as it is.
        """
        exited = asyncio.create_task(self._process.wait(), name="engine exit")
        listening = asyncio.create_task(self._listen(), name="engine status")
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

    async def stop(self, grace_s: float) -> None:
        """Drains, then SIGTERM, then SIGKILL; returns when no process is left. May be cancelled and repeated."""
        if self._calls is not None:
            try:
                await self._calls.drain(grace_s)
            except grpc.RpcError as error:
                log.warning("engine does not drain", replica=self.spec.replica, error=str(error_of(error)))
        await self.sweep()

    async def sweep(self) -> None:
        """Ends what is left of the engine's session."""
        await end_session(self.identity, self._term_grace_s)

    async def _listen(self) -> None:
        try:
            async with asyncio.timeout(LISTEN_WITHIN_S):
                address = await self._address()
                calls = EngineCalls(address, self.spec.engine_uuid, self.key)
                await self._closing.enter_async_context(calls)
                described = await self._confirm(calls)
        except TimeoutError:
            raise Unfit(f"the engine did not answer within {LISTEN_WITHIN_S:g} s of its start") from None
        self._calls = calls
        self._status = replace(self._status, address=address, fingerprint=described.fingerprint)
        self._hear(described.status)
        while True:
            try:
                await self._watch(calls)
                reason = "it ended the stream"
            except grpc.RpcError as error:
                reason = str(error_of(error))
            except TimeoutError:
                reason = f"it has been silent for {self._watch_period_s + _SILENCE_S:g} s"
            except Exception as error:
                # Whatever is wrong with listening, the engine works: it must not be ended for it.
                log.error("listening to an engine failed", replica=self.spec.replica, exc_info=error)
                reason = repr(error)
            self._say(replace(self._status, message=f"the engine does not answer: {reason}", load=None))
            await asyncio.sleep(_AGAIN.delay_s(self._failures))
            self._failures += 1

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_S)
            await asyncio.to_thread(self.bundle.trim_logs)

    async def _address(self) -> str:
        while (ready := self._ready()) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(_LOOK_S)
        said = (ready.engine_uuid, ready.pid, ready.process_start_ticks)
        ours = (self.spec.engine_uuid, self.identity.pid, self.identity.start_ticks)
        if said != ours:
            raise Unfit(f"ready.json was written by another process: it says {said}, we started {ours}")
        return ready.address

    def _ready(self) -> engine_spec_pb2.EngineReady | None:
        try:
            return self.bundle.ready()
        except (OSError, ValueError) as error:
            raise Unfit(f"ready.json cannot be read: {error}") from error

    async def _confirm(self, calls: EngineCalls) -> engine_service_pb2.DescribeResponse:
        """Returns what the engine says of itself, once it has proved over gRPC that it is ours."""
        attempt = 0
        while True:
            try:
                return self._verified(await calls.describe(_ANSWER_S))
            except grpc.RpcError as error:
                answer = error_of(error)
                if answer.own_reason in _NOT_OURS:
                    raise Unfit(f"another engine listens there: {answer}") from error
                self._say(replace(self._status, message=f"the engine does not answer: {answer}"))
            await asyncio.sleep(_AGAIN.delay_s(attempt))
            attempt += 1

    def _verified(self, described: engine_service_pb2.DescribeResponse) -> engine_service_pb2.DescribeResponse:
        said = (described.engine_uuid, described.replica_uid, described.pid)
        ours = (self.spec.engine_uuid, self.spec.replica_uid, self.identity.pid)
        if said != ours:
            raise Unfit(f"the engine says it is {said}, we started {ours}")
        return described

    async def _watch(self, calls: EngineCalls) -> None:
        """Tells each status; returns if the engine ends the stream."""
        async with cancelling(calls.watch(self._watch_period_s)) as call:
            while True:
                async with asyncio.timeout(self._watch_period_s + _SILENCE_S):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                self._failures = 0
                if message.statuses:
                    self._hear(message.statuses[-1])
                if self._status.state is State.READY and not self._status.fingerprint:
                    described = await calls.describe(_ANSWER_S)
                    self._say(replace(self._status, fingerprint=described.fingerprint))

    def _hear(self, heard: engine_service_pb2.EngineStatus) -> None:
        state = _STATES.get(heard.state, State.STARTING)
        load = heard.load if heard.HasField("load") else None
        self._say(replace(self._status, state=state, message=heard.message, load=load))

    def _say(self, status: Status) -> None:
        self._status = status
        self._tell(status)
