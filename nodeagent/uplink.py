"""Holds the session with the control plane: reports go up, assignments come down, for as long as the agent lives.

Nothing depends on the session: while there is none the engines go on, and the agent calls again, for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from roundhouse.internal.v1 import agent_service_pb2, agent_service_pb2_grpc
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import Unauthenticated
from roundhouse.kit.status import error_of

log = structlog.get_logger()

HEARTBEAT_S = 2.0  # without any news; three misses fit in the lease of a node, however long the sample period is
BURST_S = 0.05  # changes within this time travel in one report
SILENCE_S = 30.0  # an assignment comes every 10 s; who sends none for so long is not there any more
AGAIN = Backoff(first_s=0.2, cap_s=5.0, jitter=0.5)
PROTOCOL_VERSION = 1
Dial = Callable[[str], contextlib.AbstractAsyncContextManager[grpc.aio.Channel]]


@contextlib.asynccontextmanager
async def _nothing(_: grpc.aio.Channel) -> AsyncIterator[None]:
    yield


class Uplink:
    """Calls the control plane at `address`, or where it redirects to; `hint` is set when there is news to report.

    `beside` is entered for as long as a session lasts, with the channel to whoever holds it.
    """

    def __init__(
        self,
        address: str,
        dial: Dial,
        *,
        report: Callable[[], agent_service_pb2.JoinRequest],
        take: Callable[[agent_service_pb2.JoinResponse], Awaitable[None]],
        hint: asyncio.Event,
        random: Callable[[], float],
        beside: Callable[[grpc.aio.Channel], contextlib.AbstractAsyncContextManager[None]] = _nothing,
    ) -> None:
        self._address, self._dial = address, dial
        self._report, self._take, self._beside = report, take, beside
        self._hint, self._random = hint, random
        self._failures = 0  # since the control plane last said something

    async def run(self) -> None:
        """Calls again whenever the session ends, until cancelled."""
        last_reason, address = "", self._address
        while True:
            try:
                redirected = await self._session(address)
                log.info("control plane redirects", address=address, to=redirected)
                address = redirected
            except (grpc.RpcError, TimeoutError, Unauthenticated, _Lost) as error:
                reason = _reason(error)
                if reason != last_reason or not self._failures:
                    log.warning("control plane does not answer; engines go on", address=address, reason=reason)
                last_reason, address = reason, self._address
            await asyncio.sleep(AGAIN.delay_s(self._failures, self._random()))
            self._failures += 1

    async def _session(self, address: str) -> str:
        """Holds one call; returns where to call next if it is redirected."""
        async with self._dial(address) as channel, self._beside(channel):
            stub = agent_service_pb2_grpc.AgentServiceStub(channel)
            async with cancelling(stub.Join()) as call:
                sending = asyncio.create_task(self._send(call), name="reports")
                receiving = asyncio.create_task(self._receive(call, address), name="assignments")
                try:
                    done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
                    if sending in done:
                        sending.result()  # raises what is wrong with a report; a call that broke the receiver explains
                    return await receiving
                finally:
                    sending.cancel()
                    receiving.cancel()
                    await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send(self, call: Any) -> None:
        while True:
            self._hint.clear()  # before the report is written, so that no change falls between
            try:
                await call.write(self._report())
            except (grpc.RpcError, asyncio.InvalidStateError):
                return
            await asyncio.sleep(BURST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S - BURST_S):
                    await self._hint.wait()

    async def _receive(self, call: Any, address: str) -> str:
        is_first = True
        while True:
            async with asyncio.timeout(SILENCE_S):
                message = await call.read()
            if message is grpc.aio.EOF:
                raise _Lost("it ended the session")
            if message.protocol_version != PROTOCOL_VERSION:
                raise _Lost(f"it speaks version {message.protocol_version}, this agent {PROTOCOL_VERSION}: upgrade one")
            if is_first:
                log.info("joined the control plane", address=address)
            is_first, self._failures = False, 0
            if message.redirect_address:
                return str(message.redirect_address)
            await self._take(message)


class _Lost(Exception):
    """The session is over for a reason that gRPC does not know."""


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return str(error_of(error))
    return f"it has been silent for {SILENCE_S:g} s" if isinstance(error, TimeoutError) else str(error)
