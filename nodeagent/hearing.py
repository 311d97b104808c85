"""Hears what an engine says of itself, and finds out whether it is silent. Ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import grpc
import structlog

from nodeagent.dial import EngineCalls
from nodeagent.launch import Started
from nodeagent.model import State, Timing
from nodeagent.progress import in_stage
from roundhouse.internal.v1 import engine_service_pb2, engine_spec_pb2
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import DeadlineExceeded, RoundhouseError, Unreachable
from roundhouse.kit.status import error_of
from roundhouse.kit.times import from_timestamp
from roundhouse.v1 import deployment_pb2, errors_pb2

log = structlog.get_logger()

LISTEN_WITHIN_S = 600.0  # from its start to its proof that it is ours; loading the model is not in it
MOST_VERSIONS = 128  # of packages that an engine names
_LOOK_S = 0.05  # a file cannot be waited for without a dependency, and this one comes once
_ANSWER_S = 10.0
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
    package_versions: Mapping[str, str] = field(default_factory=dict)  # if it runs in an environment of its own
    progress: deployment_pb2.LaunchProgress | None = None  # on its way to READY


class Unfit(Exception):
    """The process does not prove to be the engine that was started, or has been silent for too long."""


class Hearing:
    """What one life of an engine says. A context manager: leaving it hangs up.

    has_served: it has been READY, as far as an earlier agent knew.
    """

    def __init__(self, started: Started, tell: Callable[[Status], None], timing: Timing, *, has_served: bool) -> None:
        self._bundle, self._spec, self._key = started.bundle, started.spec, started.key
        self._identity = started.process.identity
        self._tell, self._timing, self._has_served = tell, timing, has_served
        # Until it reads weights it tells no stage.
        self._starting = in_stage(
            deployment_pb2.LAUNCH_STAGE_STARTING_ENGINE, None, from_timestamp(self._spec.start_time)
        )
        self._status = Status(
            State.STARTING,
            "the process runs and has not answered yet",
            progress=None if has_served else self._starting,
        )
        self._calls: EngineCalls | None = None
        self._failures = 0  # of watching, since the engine last said something there
        self._heard_s = 0.0  # when it last said something at all
        self._silent_since_s: float | None = None
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Hearing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    @property
    def status(self) -> Status:
        """What the engine last said."""
        return self._status

    @property
    def calls(self) -> EngineCalls | None:
        """Calls to the engine; None until it has proved that it is ours."""
        return self._calls

    async def listen(self) -> None:
        """Tells what the engine says. Raises Unfit, and nothing else, if it must not live on."""
        while True:
            try:
                calls = self._calls or await self._meet()
                await self._ask(calls, await self._watch(calls))
            except Unfit:
                raise
            except Exception as error:
                # Whatever is wrong with listening, the engine works: it must not be ended for it.
                log.error("listening to an engine failed", replica=self._spec.replica, exc_info=error)
            await asyncio.sleep(_AGAIN.delay_s(self._failures))
            self._failures += 1

    async def _meet(self) -> EngineCalls:
        """Returns calls to the engine, once it has proved that it is ours."""
        within_s = self._patience_s()
        async with contextlib.AsyncExitStack() as opened:
            try:
                async with asyncio.timeout(within_s):
                    address = await self._address()
                    calls = await opened.enter_async_context(EngineCalls(address, self._spec.engine_uuid, self._key))
                    described = await self._confirm(calls)
            except TimeoutError:
                raise Unfit(f"the engine did not answer within {within_s:g} s") from None
            self._closing = opened.pop_all()
        self._calls = calls
        self._note_heard()
        self._status = replace(
            self._status,
            address=address,
            fingerprint=described.fingerprint,
            package_versions=self._versions(described),
        )
        self._hear(described.status)
        return calls

    def _versions(self, described: engine_service_pb2.DescribeResponse) -> Mapping[str, str]:
        if not self._spec.spec.HasField("virtual_env"):
            return {}
        return dict(sorted(described.package_versions.items())[:MOST_VERSIONS])

    async def _address(self) -> str:
        while (ready := self._ready()) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(_LOOK_S)
        said = (ready.engine_uuid, ready.pid, ready.process_start_ticks)
        ours = (self._spec.engine_uuid, self._identity.pid, self._identity.start_ticks)
        if said != ours:
            raise Unfit(f"ready.json was written by another process: it says {said}, we started {ours}")
        return ready.address

    def _ready(self) -> engine_spec_pb2.EngineReady | None:
        try:
            return self._bundle.ready()
        except (OSError, ValueError) as error:
            raise Unfit(f"ready.json cannot be read: {error}") from error

    async def _confirm(self, calls: EngineCalls) -> engine_service_pb2.DescribeResponse:
        """Returns what the engine says of itself, once it has proved over gRPC that it is ours."""
        attempt = 0
        while True:
            try:
                return await self._describe(calls, _ANSWER_S)
            except RoundhouseError as answer:
                self._say(replace(self._status, message=f"the engine does not answer: {answer}"))
            await asyncio.sleep(_AGAIN.delay_s(attempt))
            attempt += 1

    async def _describe(self, calls: EngineCalls, timeout_s: float) -> engine_service_pb2.DescribeResponse:
        """Asks the engine who it is and how; raises Unfit if another one answers, and RoundhouseError."""
        try:
            return self._verified(await calls.describe(timeout_s))
        except grpc.RpcError as error:
            answer = error_of(error)
            if answer.own_reason in _NOT_OURS:
                raise Unfit(f"another engine listens there: {answer}") from error
            raise answer from error

    def _verified(self, described: engine_service_pb2.DescribeResponse) -> engine_service_pb2.DescribeResponse:
        said = (described.engine_uuid, described.replica_uid, described.pid)
        ours = (self._spec.engine_uuid, self._spec.replica_uid, self._identity.pid)
        if said != ours:
            raise Unfit(f"the engine says it is {said}, we started {ours}")
        return described

    async def _watch(self, calls: EngineCalls) -> str:
        """Tells each status for as long as they come; returns why there are no more."""
        try:
            await self._take_statuses(calls)
        except grpc.RpcError as error:
            return str(error_of(error))
        except TimeoutError:
            return "it is silent"
        return "it ended the stream"

    async def _take_statuses(self, calls: EngineCalls) -> None:
        async with cancelling(calls.watch(self._timing.watch_period_s)) as call:
            while True:
                async with asyncio.timeout(self._watch_within_s()):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                self._failures = 0
                self._note_heard()
                if message.statuses:
                    self._hear(message.statuses[-1])
                if self._status.state is State.READY and not self._status.fingerprint:
                    described = await calls.describe(_ANSWER_S)
                    self._say(replace(self._status, fingerprint=described.fingerprint))

    async def _ask(self, calls: EngineCalls, reason: str) -> None:
        """Asks an engine that says nothing more by itself, for `reason`; raises Unfit if it is silent for too long."""
        begin_s = _now_s()
        if self._silent_since_s is None:
            if self._failures == 0:
                log.warning("the status of an engine has broken off", replica=self._spec.replica, reason=reason)
            # Beyond what the watch waits for, it was this process that stood still, and not the engine.
            self._silent_since_s = max(self._heard_s, begin_s - self._watch_within_s())
        silent_since_s = self._silent_since_s
        try:
            described = await self._describe(calls, self._timing.silence_s / 2)
        except (Unreachable, DeadlineExceeded) as answer:
            silent_s = _now_s() - silent_since_s
            # It is asked once more when its time is up, for the same reason.
            if begin_s - silent_since_s >= self._patience_s():
                raise Unfit(f"the engine was ended: it had been silent for {silent_s:.0f} s") from answer
            # Nobody listens there for a moment when it dies, which the exit of its process will say better.
            if silent_s >= self._timing.silence_s:
                self._say_silent(silent_s)
        except RoundhouseError as answer:
            self._note_heard()  # that it cannot say how it is makes it no worse
            self._say(replace(self._status, message=f"the engine does not say how it is: {answer}", load=None))
        else:
            self._note_heard()
            self._hear(described.status)

    def _watch_within_s(self) -> float:
        # One half of the silence is waited for in the stream, the other for an answer: either may be late by itself.
        return self._timing.watch_period_s + self._timing.silence_s / 2

    def _patience_s(self) -> float:
        # While it loads, a library may keep the interpreter to itself for long; and no request waits for it.
        return self._timing.hung_s if self._has_served else LISTEN_WITHIN_S

    def _note_heard(self) -> None:
        self._heard_s, self._silent_since_s = _now_s(), None

    def _hear(self, heard: engine_service_pb2.EngineStatus) -> None:
        state = _STATES.get(heard.state, State.STARTING)
        self._has_served = self._has_served or state is State.READY
        load = heard.load if heard.HasField("load") else None
        progress = heard.progress if heard.HasField("progress") else self._starting
        self._say(replace(self._status, state=state, message=heard.message, load=load, progress=progress))

    def _say_silent(self, silent_s: float) -> None:
        # Nothing may be sent to it. Whether it loads, works or hangs is not known; that its process runs is.
        state = State.STARTING if self._status.state is State.READY else self._status.state
        message = f"the engine does not answer: it has been silent for {silent_s:.0f} s"
        self._say(replace(self._status, state=state, message=message, load=None, progress=None))

    def _say(self, status: Status) -> None:
        self._status = status
        self._tell(status)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
