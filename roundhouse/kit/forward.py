"""Passes whole services on to another server, as bytes: requests, answers, metadata, deadlines, cancels and statuses.

Whatever the arity of a method, both ends see it as it is: on the wire a call with one message is a stream of one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from roundhouse.kit.channel import cancelling
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.service import Gate, Method, guard
from roundhouse.kit.status import STATUS_DETAILS_KEY

# The transport's own; each connection has them anew.
_OWN_PREFIXES = ("grpc-", ":")
_OWN_KEYS = frozenset({"user-agent", "te", "content-type", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A service that another server serves. `away` makes the error for callers when that one does not answer."""

    descriptor: ServiceDescriptor
    channel: grpc.aio.Channel
    away: Callable[[], Unreachable]

    def handlers(self, gate: Gate | None = None) -> grpc.GenericRpcHandler:
        """Returns what a server registers; every call passes the gate first, if there is one."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            each.name: grpc.stream_stream_rpc_method_handler(guard(each.full_name, self._method(each.name), gate))
            for each in self.descriptor.methods
        }
        return grpc.method_handlers_generic_handler(self.descriptor.full_name, methods)

    def _method(self, name: str) -> Method:
        start: Any = self.channel.stream_stream(f"/{self.descriptor.full_name}/{name}")

        async def forward(_: Any, context: Any) -> None:
            call = start(metadata=_passed(context.invocation_metadata()), timeout=context.time_remaining())
            async with cancelling(call):
                sending = asyncio.create_task(_send(context, call), name=f"requests of {name}")
                try:
                    await self._answer(call, context)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)

        return forward

    async def _answer(self, call: Any, context: Any) -> None:
        try:
            message = await call.read()
            await context.send_initial_metadata(_passed(await call.initial_metadata()))
            while message is not grpc.aio.EOF:
                await context.write(message)
                message = await call.read()
            context.set_trailing_metadata(_passed(await call.trailing_metadata()))
        except grpc.RpcError as error:
            await self._refuse(error, context)

    async def _refuse(self, error: Any, context: Any) -> NoReturn:
        trailing = error.trailing_metadata()
        has_details = metadata_value(trailing, STATUS_DETAILS_KEY) is not None
        # Without details no server of ours said so, but what lies between; CANCELLED comes of one that goes down.
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) and not has_details:
            raise self.away() from error
        await context.abort(error.code(), error.details() or "", _passed(trailing))
        raise AssertionError("abort returns never")


async def _send(context: Any, call: Any) -> None:
    """Passes requests on until there are no more, or the call is over: how it ended is said where answers are read."""
    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
        while (message := await context.read()) is not grpc.aio.EOF:
            await call.write(message)
        await call.done_writing()


def _passed(metadata: Iterable[Any] | None) -> tuple[tuple[str, str | bytes], ...]:
    """Returns what of some metadata is not the transport's own."""
    return tuple((key, value) for key, value in metadata or () if key == STATUS_DETAILS_KEY or not _is_own(key))


def _is_own(key: str) -> bool:
    return key.startswith(_OWN_PREFIXES) or key in _OWN_KEYS
