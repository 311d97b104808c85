"""One request's stream, from the engine that runs it to the client, over all engines that run it one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from controlplane.gateway.admission.costs import usage_in
from controlplane.gateway.opened import Opened, is_lost
from controlplane.gateway.outlet import Outlet
from controlplane.gateway.record import Event, Record
from controlplane.gateway.whereabouts import name
from controlplane.model import Route
from roundhouse.kit.errors import Conflict, RoundhouseError, Unreachable
from roundhouse.kit.status import error_of
from roundhouse.v1 import errors_pb2, generation_pb2, inference_service_pb2, receipt_pb2

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Lost:
    """A stream that broke, and what there is to go on with."""

    route: Route
    attempt: int
    record: Record
    is_drained: bool  # its engine gave it up; else the engine or the way to it is gone
    error: RoundhouseError


class Tombstoned(Exception):
    """The request was cancelled while no engine had it."""


SPENT_EVERY = 16  # messages, of a token each at least
Spent = Callable[[int, int | None], object]  # output tokens, and those of the prompt if they are known
Continue = Callable[[Lost], Awaitable[Opened]]
Judge = Callable[[Route, grpc.RpcError], None]  # is told what breaks a stream


def _ignore(_output: int, _prompt: int | None) -> None:
    """Tells nobody."""


class RequestStream:
    """Reads one stream and tells it. The client may leave it; it goes on then until whoever started it ends it."""

    def __init__(self, outlet: Outlet, now_s: Callable[[], float], judge: Judge) -> None:
        self._opened: Opened | None = None
        self._outlet, self._now_s, self._judge = outlet, now_s, judge
        self._record: Record | None = None
        self._is_resumed = False  # what comes may have been told before
        self._message_count = 0
        self._last = b""  # message that came

    @property
    def route(self) -> Route | None:
        """Returns where the request is or was read last; None before that."""
        return None if self._opened is None else self._opened.route

    @property
    def policy(self) -> generation_pb2.DisconnectPolicy | None:
        """What the request wants when its client leaves; None if its engine does not say."""
        return None if self._record is None else self._record.options.on_disconnect.policy

    async def run(self, open_: Callable[[], Awaitable[Opened]], continue_: Continue, spent: Spent = _ignore) -> None:
        """Tells all of it, though some may not be written yet; raises what ends it.

        spent: is told now and then what it has taken so far.
        """
        self._spent = spent
        try:
            opened = self._opened = await open_()
        except asyncio.CancelledError:  # its prompt may have been computed
            spent(0, None)
            raise
        except Exception:
            spent(0, 0)
            raise
        try:
            self._outlet.begin(opened.metadata)
            await self._take_first(opened)
            while (lost := await self._pump(opened)) is not None:
                await opened.close()
                opened = self._opened = await continue_(lost)
                await self._go_on(opened, lost)
        except Tombstoned:
            assert self._record is not None
            await self._tell(self._record.cancelled(receipt_pb2.CANCEL_CAUSE_CLIENT))
        except Exception:  # whatever ends it comes behind what is on its way
            await self._outlet.flush()
            raise
        finally:
            self._settle(opened)
            await opened.close()

    def _settle(self, opened: Opened) -> None:
        """Tells those who count what it took: as its engine has said, else what came."""
        usage = usage_in(self._last)
        if usage is None:
            self._spent(self._message_count, None)
        else:
            self._spent(usage.output_token_count, usage.prompt_token_count)
            if opened.flight is not None:
                opened.flight.told(max(0, usage.output_token_count - self._message_count))

    async def _pump(self, opened: Opened) -> Lost | None:
        """Tells what comes; returns what there is to go on with if the stream breaks. Raises what else ends it."""
        try:
            await self._relay(opened)
        except grpc.RpcError as error:
            return self._lost(opened, error)
        return None

    async def _relay(self, opened: Opened) -> None:
        call, flight, outlet, record = opened.call, opened.flight, self._outlet, self._record
        while True:
            message: Any = await call.read()
            if message is grpc.aio.EOF:
                return
            self._last = message
            self._message_count += 1
            if flight is not None:
                flight.told(1)  # at least; more while the engine waits for us
                if self._message_count % SPENT_EVERY == 0:
                    self._spent(self._message_count, None)
            if self._is_resumed:
                events = inference_service_pb2.GenerateResponse.FromString(message).events
                await self._tell(self._unseen(events))
            else:
                if record is not None:
                    record.add(message)
                await outlet.put(message)

    async def _take_first(self, opened: Opened) -> None:
        first = opened.first
        if first is None:
            return
        message = inference_service_pb2.GenerateResponse(events=first.events).SerializeToString()
        if first.HasField("kept"):
            self._record = Record(first.kept, self._now_s())
            self._record.add(message)
        await self._outlet.put(message)

    async def _go_on(self, opened: Opened, lost: Lost) -> None:
        """Takes the first message of a stream that goes on: `resumed` for `started`, nothing if it is the same run."""
        self._is_resumed = True
        first = opened.first
        if first is None:
            return
        if first.HasField("kept"):
            lost.record.renew(first.kept, self._now_s())
        is_exact = lost.record.is_exact
        told = [
            _resumed(each.started, lost, is_exact=is_exact) if each.WhichOneof("event") == "started" else each
            for each in first.events
            if not (each.WhichOneof("event") == "started" and each.started.attempt == lost.attempt)
        ]
        await self._tell(self._unseen(told))

    def _unseen(self, events: Iterable[Event]) -> list[Event]:
        assert self._record is not None
        return self._record.unseen(events)

    async def _tell(self, events: list[Event]) -> None:
        if events:
            await self._outlet.put(inference_service_pb2.GenerateResponse(events=events).SerializeToString())

    def _lost(self, opened: Opened, error: grpc.RpcError) -> Lost | None:
        """Returns what there is to go on with; None if nothing is missing. Raises what ends the stream."""
        ours, route = error_of(error), opened.route
        if ours.own_reason != errors_pb2.ERROR_REASON_HANDED_OVER:
            self._judge(route, error)
        if not is_lost(error, ours):
            raise error
        is_drained = ours.own_reason == errors_pb2.ERROR_REASON_HANDED_OVER
        if not is_drained:
            log.warning("engine lost", replica=name(route.deployment, route.index), engine=route.engine_uuid)
        record = self._record
        if record is not None and record.is_complete:
            return None
        gone = _drained(route) if is_drained else _gone(route)
        if record is None or record.options.failover == generation_pb2.FAILOVER_POLICY_NEVER:
            raise gone from error
        return Lost(route, opened.run_attempt, record, is_drained, gone)


def _resumed(started: generation_pb2.Started, lost: Lost, *, is_exact: bool) -> Event:
    reason = generation_pb2.RESUME_REASON_DRAINED if lost.is_drained else generation_pb2.RESUME_REASON_ENGINE_LOST
    resumed = generation_pb2.Resumed(
        attempt=started.attempt,
        location=started.location,
        replica=started.replica,
        fingerprint=started.fingerprint,
        exactness=generation_pb2.EXACTNESS_EXACT if is_exact else generation_pb2.EXACTNESS_APPROXIMATE,
        reason=reason,
        positions=lost.record.positions(),
    )
    return Event(resumed=resumed)


def _gone(route: Route) -> Unreachable:
    replica = name(route.deployment, route.index)
    return Unreachable(
        f'the engine of "{replica}" was lost while it ran the request: send it again',
        reason=errors_pb2.ERROR_REASON_ENGINE_LOST,
        metadata={"replica": replica},
    )


def _drained(route: Route) -> Conflict:
    replica = name(route.deployment, route.index)
    return Conflict(
        f'the engine of "{replica}" had to stop, and no other one goes on with the request: send it again',
        reason=errors_pb2.ERROR_REASON_DRAINING,
        metadata={"replica": replica},
    )
