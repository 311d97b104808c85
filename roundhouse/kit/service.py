"""Turns an object with one coroutine per method into a gRPC service, and guards every call.

Methods are `async def M(self, request, context) -> Response`, or `-> None` with `await context.write(...)` where the
response is a stream (a generator blocked in a write would learn of a cancel only when it is collected). A method may
give serialized bytes in place of a message. What it raises becomes a status by the one table of
`roundhouse.kit.status`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from roundhouse.kit.errors import Unreachable
from roundhouse.kit.status import error_of, status_of, to_status

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the contract and the object that serves it; methods that the object lacks are UNIMPLEMENTED."""

    descriptor: ServiceDescriptor
    servicer: object

    def handlers(self) -> grpc.GenericRpcHandler:
        """Returns what a server registers."""
        methods = {
            each.name: _handler(each, getattr(self.servicer, each.name))
            for each in self.descriptor.methods
            if hasattr(self.servicer, each.name)
        }
        return grpc.method_handlers_generic_handler(self.descriptor.full_name, methods)


def _handler(method: MethodDescriptor, serve: Method) -> grpc.RpcMethodHandler[Any, Any]:
    arity = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    build = getattr(grpc, "{}_{}_rpc_method_handler".format(*arity))
    request = GetMessageClass(method.input_type)
    handler: grpc.RpcMethodHandler[Any, Any] = build(
        _guard(method.full_name, serve), request_deserializer=request.FromString, response_serializer=_serialize
    )
    return handler


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _guard(name: str, serve: Method) -> Method:
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
