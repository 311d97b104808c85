"""Turns an object with one coroutine per method into a gRPC service, and guards every call.

Methods are `async def M(self, request, context) -> Response`, or `-> None` with `await context.write(...)` where the
response is a stream (a generator blocked in a write would learn of a cancel only when it is collected). A method may
give serialized bytes in place of a message. Where the requests are a stream, `request` yields them, and so does
`await context.read()`. What a method raises becomes a status by the one table of `roundhouse.kit.status`, and bytes
that are no request become INVALID_ARGUMENT: gRPC itself would say UNKNOWN.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
import structlog
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from roundhouse.kit.errors import InvalidArgument, Unreachable
from roundhouse.kit.status import error_of, status_of, to_status

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Any], Awaitable[Any]]
Parse = Callable[[bytes], Message]


class Gate(Protocol):
    """Decides who may call what, before a request is looked at."""

    def admitted(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Returns a block in which a call is served, or raises what its caller is told; may end it as it runs.

        method: full name as descriptors have it, for example `roundhouse.v1.NodeService.ListNodes`.
        """


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the contract and the object that serves it; methods that the object lacks are UNIMPLEMENTED."""

    descriptor: ServiceDescriptor
    servicer: object
    name: str = ""  # under which it is served; that of the descriptor if empty

    def handlers(self, gate: Gate | None = None) -> grpc.GenericRpcHandler:
        """Returns what a server registers; every call passes the gate first, if there is one."""
        methods = {
            each.name: _handler(each, getattr(self.servicer, each.name), gate)
            for each in self.descriptor.methods
            if hasattr(self.servicer, each.name)
        }
        return grpc.method_handlers_generic_handler(self.name or self.descriptor.full_name, methods)


def _handler(method: MethodDescriptor, serve: Method, gate: Gate | None) -> grpc.RpcMethodHandler[Any, Any]:
    arity = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    build = getattr(grpc, "{}_{}_rpc_method_handler".format(*arity))
    parse = _parser(method.input_type)
    checked = _checked_stream(serve, parse) if method.client_streaming else _checked(serve, parse)
    handler: grpc.RpcMethodHandler[Any, Any] = build(
        guard(method.full_name, checked, gate),
        response_serializer=_serialize,
    )
    return handler


def _parser(kind: Descriptor) -> Parse:
    """Returns what reads a request: behind the gate, and in the method, since only there an error can have details."""
    from_string = GetMessageClass(kind).FromString

    def parse(packed: bytes) -> Message:
        try:
            return from_string(packed)
        except DecodeError as error:
            message = f"the bytes of the request are no {kind.full_name}: encode it by the protos of this version"
            raise InvalidArgument(message) from error

    return parse


def _checked(serve: Method, parse: Parse) -> Method:
    async def checked(request: Any, context: Context) -> Any:
        return await serve(parse(request), context)

    return checked


def _checked_stream(serve: Method, parse: Parse) -> Method:
    async def checked(_: Any, context: Context) -> Any:
        reading = _Reading(context, parse)
        return await serve(reading, reading)

    return checked


class _Reading:
    """The context of a call whose requests are a stream, and these requests; raises at one that is none."""

    def __init__(self, context: Context, parse: Parse) -> None:
        self._context, self._parse = context, parse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        packed = await self._context.read()
        return packed if packed is grpc.aio.EOF else self._parse(packed)

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> Any:
        request = await self.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


def _gated(name: str, serve: Method, gate: Gate) -> Method:
    async def gated(request: Any, context: Context) -> Any:
        async with gate.admitted(name, context):
            return await serve(request, context)

    return gated


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def guard(name: str, serve: Method, gate: Gate | None = None) -> Method:
    """Returns a method behind the gate, if there is one, of which whatever it raises becomes a status."""
    if gate is not None:
        serve = _gated(name, serve, gate)

    async def guarded(request: Any, context: Context) -> Any:
        start_s = time.monotonic()
        task = asyncio.current_task()
        code = "OK"
        try:
            return await serve(request, context)
        except asyncio.CancelledError:
            code = "CANCELLED"
            if task is not None and task.cancelling():
                raise  # the peer left or its deadline passed; swallowing this leaks
            # Not ours to be cancelled by: an inner call was. Without a status the client would hang until its deadline.
            await _abort(context, Unreachable("the call was interrupted on its way: try again"))
        except grpc.aio.AbortError:
            code = str(context.code())
            raise
        except grpc.RpcError as error:
            ours = error_of(error)
            code = status_of(ours).name
            await _abort(context, ours)
        except Exception as error:
            code = status_of(error).name
            if code == "INTERNAL":
                log.error("call failed", method=name, exc_info=error)
            await _abort(context, error)
        finally:
            log.debug("call ended", method=name, code=code, duration_s=round(time.monotonic() - start_s, 6))

    return guarded


async def _abort(context: Context, error: BaseException) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort returns never")
