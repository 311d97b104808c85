"""Errors cross the wire with their code, reason and details, and nothing else of us does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2

from roundhouse.kit import errors
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.errors import FieldViolation, QuotaViolation, Resource, RoundhouseError
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.status import STATUS, STATUS_DETAILS_KEY, error_of, reason_name, status_of
from roundhouse.v1 import errors_pb2, node_service_pb2, node_service_pb2_grpc

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, RoundhouseError) and each is not RoundhouseError
]


class Scripted:
    """A NodeService that raises what it is told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def GetNode(self, request: Any, context: Any) -> Any:
        raise self.error

    async def WatchNodes(self, request: Any, context: Any) -> None:
        await context.write(node_service_pb2.WatchNodesResponse())
        raise self.error


class Broken:
    """A NodeService of somebody else, whose errors have details that cannot be read."""

    def __init__(self, details: bytes) -> None:
        self.details = details

    async def GetNode(self, request: Any, context: Any) -> Any:
        context.set_trailing_metadata([(STATUS_DETAILS_KEY, self.details)])
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


@contextlib.asynccontextmanager
async def client_of(servicer: object) -> AsyncIterator[Any]:
    service = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], servicer)
    async with serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving, open_channel(serving.address) as channel:
        yield node_service_pb2_grpc.NodeServiceStub(channel)


async def raised_by(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refusal:
        await call
    return refusal.value


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
async def test_every_class_of_error_has_a_code_and_comes_back_as_itself(kind: type[RoundhouseError]) -> None:
    assert kind in STATUS
    async with client_of(Scripted(kind("the thing is wrong: do this"))) as stub:
        refusal = await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest()))
    assert refusal.code() is status_of(kind(""))
    ours = error_of(refusal)
    assert str(ours) == "the thing is wrong: do this"
    assert ours.own_reason == kind.reason
    assert type(ours) is (errors.Internal if kind is errors.Usage else kind)


async def test_details_survive_the_wire() -> None:
    sent = errors.NoCapacity(
        "no room: wait",
        reason=errors_pb2.ERROR_REASON_QUEUE_FULL,
        fields=[FieldViolation("a.b", "is odd")],
        quota=[QuotaViolation("nodes/a/gpus/0", "has 1 GiB")],
        resource=Resource("kind", "name"),
        retry_after_s=1.25,
        metadata={"known": "x, y"},
    )
    async with client_of(Scripted(sent)) as stub:
        ours = error_of(await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest())))
    assert reason_name(ours.own_reason) == "QUEUE_FULL"
    assert (ours.fields, ours.quota, ours.resource) == (sent.fields, sent.quota, sent.resource)
    assert (ours.retry_after_s, ours.metadata) == (1.25, {"known": "x, y"})


@pytest.mark.parametrize(
    "details",
    [
        b"\xff\xff\xff",
        status_pb2.Status(
            code=5, details=[AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff")]
        ).SerializeToString(),
    ],
    ids=["no status", "a status with an entry that is none"],
)
async def test_an_error_whose_details_are_broken_is_the_plain_one(details: bytes) -> None:
    async with client_of(Broken(details)) as stub:
        ours = error_of(await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest())))
    assert (type(ours), str(ours), ours.own_reason) == (errors.NotFound, "no such thing", errors.NotFound.reason)


async def test_a_fault_of_ours_tells_the_caller_nothing_about_itself() -> None:
    async with client_of(Scripted(ValueError("the secret prompt"))) as stub:
        refusal = await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest()))
    assert refusal.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(refusal)


async def test_an_error_after_the_first_message_ends_the_stream_with_its_status() -> None:
    async with (
        client_of(Scripted(errors.Unreachable("gone: again"))) as stub,
        cancelling(stub.WatchNodes(node_service_pb2.WatchNodesRequest())) as call,
    ):
        await call.read()
        assert (await raised_by(call.read())).code() is grpc.StatusCode.UNAVAILABLE


async def test_an_inner_cancel_becomes_a_status_at_once_and_not_a_stream_that_hangs() -> None:
    async with client_of(Scripted(asyncio.CancelledError())) as stub:
        refusal = await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest(), timeout=30))
    assert refusal.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_method_that_is_not_served_is_unimplemented() -> None:
    async with client_of(object()) as stub:
        refusal = await raised_by(stub.ListNodes(node_service_pb2.ListNodesRequest()))
    assert refusal.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_over_the_limit_is_refused_by_name() -> None:
    service = Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], Scripted(ValueError()))
    async with (
        serve(Listen("127.0.0.1", 0), [service], grace_s=0, max_receive_bytes=1024) as serving,
        open_channel(serving.address) as channel,
    ):
        stub = node_service_pb2_grpc.NodeServiceStub(channel)
        ours = error_of(await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest(name="x" * 2048))))
    assert type(ours) is errors.NoCapacity
    assert ours.own_reason == errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE
    assert str(ours) == "the message has 2051 bytes, and 1024 are taken at most: send less"


@pytest.mark.parametrize("char", ["x", "é", "日"])
@pytest.mark.parametrize(
    "long",
    [
        pytest.param(lambda text: errors.InvalidArgument(text, fields=[FieldViolation(text, text)]), id="one field"),
        pytest.param(
            lambda text: errors.InvalidArgument(text, fields=[FieldViolation("a", text[:90])] * 500), id="many fields"
        ),
        pytest.param(
            lambda text: errors.NoCapacity(text, quota=[QuotaViolation("nodes/a/gpus/0", text[:90])] * 500), id="quota"
        ),
        pytest.param(lambda text: errors.NotFound(text, resource=Resource("kind", text)), id="resource"),
        pytest.param(lambda text: errors.InvalidArgument("no", metadata={"known": text}), id="metadata"),
    ],
)
async def test_an_error_that_quotes_a_long_text_is_cut_and_keeps_its_code_and_reason(
    long: Callable[[str], RoundhouseError], char: str
) -> None:
    sent = long(char * 40_000)
    async with client_of(Scripted(sent)) as stub:
        refusal = await raised_by(stub.GetNode(node_service_pb2.GetNodeRequest()))
    ours = error_of(refusal)
    assert (type(ours), ours.own_reason) == (type(sent), sent.own_reason)
    assert len(metadata_value(refusal.trailing_metadata(), STATUS_DETAILS_KEY) or "") < 6000
    assert bool(ours.fields) == bool(sent.fields)
    assert bool(ours.quota) == bool(sent.quota)
