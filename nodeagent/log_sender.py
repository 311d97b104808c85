"""Sends the control plane what engines wrote, as long as it asks for it, one call for each of those who wait there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import grpc
import structlog

from nodeagent.aside import aside
from nodeagent.bundle import STREAMS, Bundle
from nodeagent.hiding import Hiding
from nodeagent.logs.lines import CUT
from nodeagent.logs.reading import Reading, Stream, Written
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.internal.v1 import agent_service_pb2_grpc
from roundhouse.kit.channel import cancelling
from roundhouse.kit.status import error_of
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1.log_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, LogLine, LogStream

log = structlog.get_logger()

LOOK_PERIOD_S = 0.2  # a file does not say that it has grown; a person takes this for at once
_OF_WIRE: dict[LogStream, tuple[Stream, ...]] = {LOG_STREAM_STDOUT: ("stdout",), LOG_STREAM_STDERR: ("stderr",)}
_TO_WIRE: dict[Stream, LogStream] = {"stdout": LOG_STREAM_STDOUT, "stderr": LOG_STREAM_STDERR}


class Folders(Protocol):
    """The directories of replicas."""

    def find(self, replica_uid: str) -> Bundle | None:
        """Returns that of a replica; None if it has none."""


class LogSender:
    """Answers the log requests of whoever holds the session; every call ends with it.

    Nothing is read ahead: a call that cannot be written to holds up its reading, and nothing else.
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._stub: agent_service_pb2_grpc.AgentServiceStub | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def connected(self, channel: grpc.aio.Channel) -> AsyncIterator[None]:
        """Lets requests be answered over this channel, for the block."""
        self._stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        try:
            yield
        finally:
            self.send(())
            await asyncio.gather(*self._leaving, return_exceptions=True)
            self._stub = None

    def send(self, requests: Sequence[wire.LogRequest]) -> None:
        """Answers these from now on, and no others; what has been answered is not answered again."""
        wanted = {each.request_id: each for each in requests}
        for request_id in self._tasks.keys() - wanted.keys():
            task = self._tasks.pop(request_id)
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            task.cancel()
        for request_id in wanted.keys() - self._tasks.keys():
            name = f"logs for {request_id}"
            self._tasks[request_id] = asyncio.create_task(self._answer(wanted[request_id]), name=name)

    async def _answer(self, request: wire.LogRequest) -> None:
        assert self._stub is not None, "requests come over a session"
        try:
            async with cancelling(self._stub.SendLogs()) as call:
                with contextlib.suppress(asyncio.InvalidStateError):  # it has ended, and its status says why
                    await call.write(wire.SendLogsRequest(request_id=request.request_id))
                    await self._tell(request, call)
                    await call.done_writing()
                await call
        except grpc.RpcError as error:
            log.info("logs are not taken", replica_uid=request.replica_uid, reason=str(error_of(error)))
        except Exception as error:
            # Of this reader alone: the session and all others go on.
            log.error("sending logs failed", replica_uid=request.replica_uid, exc_info=error)

    async def _tell(self, request: wire.LogRequest, call: Any) -> None:
        steps = self.steps(request)
        try:
            while (written := await aside(lambda: next(steps, None), "logs")) is not None:
                if written:
                    await call.write(wire.SendLogsRequest(lines=map(_to_wire, written)))
                else:
                    await asyncio.sleep(LOOK_PERIOD_S)
        except (OSError, _Lacking) as error:
            await call.write(wire.SendLogsRequest(refusal=str(error), is_last=True))
        else:
            await call.write(wire.SendLogsRequest(is_last=True))

    def steps(self, request: wire.LogRequest) -> Iterator[Sequence[Written]]:
        """Yields what there is to send, and nothing where there is no news; ends when all is told. For a thread."""
        hiding: Hiding | None = None
        for written in self._as_written(request):
            bundle = self._folders.find(request.replica_uid) if written else None
            if bundle is not None:
                hiding = _hiding(bundle)
            if written and hiding is None:
                return  # the replica has gone, and its secrets with it
            yield written if hiding is None else [_hidden(each, hiding) for each in written]

    def _as_written(self, request: wire.LogRequest) -> Iterator[Sequence[Written]]:
        streams = _OF_WIRE.get(request.stream, STREAMS)
        reading = Reading(
            tail_line_count=request.tail_line_count if request.HasField("tail_line_count") else None,
            since_s=from_timestamp(request.since_time) if request.HasField("since_time") else None,
        )
        bundle = self._folders.find(request.replica_uid)
        if request.previous_life:
            life = None if bundle is None else bundle.previous_life(streams)
            if bundle is None or life is None:
                raise _Lacking("the engine has had no life before this one: leave previous_life out")
            yield from reading.first(life, bundle.start_time_s(is_previous=True), goes_on=False)
            return
        if bundle is not None and (life := bundle.life(streams)) is not None:
            yield from reading.first(life, bundle.start_time_s(), goes_on=request.follow)
        was_there = bundle is not None
        while request.follow:
            yield ()
            bundle = self._folders.find(request.replica_uid)
            if bundle is not None:
                was_there = True
                yield from reading.more(bundle.life(streams), bundle.previous_life(streams))
            elif was_there:
                return  # the replica has left this node


def _hiding(bundle: Bundle) -> Hiding:
    try:
        return Hiding(bundle.spec().spec)
    except ValueError as error:
        raise _Lacking(f"its secrets are not known ({error}), so nothing is shown: restart the replica") from error


def _hidden(written: Written, hiding: Hiding) -> Written:
    line = written.line
    if not hiding:
        return written
    return replace(written, line=replace(line, text=hiding.hide(line.text, mark=CUT if line.omitted_bytes else "")))


class _Lacking(Exception):
    """There is nothing to send, and the message says why."""


def _to_wire(written: Written) -> LogLine:
    line = written.line
    return LogLine(
        time=None if line.time_s is None else to_timestamp(line.time_s),
        stream=_TO_WIRE[written.stream],
        text=line.text,
        omitted_byte_count=line.omitted_bytes,
        skipped_byte_count=line.skipped_bytes,
    )
