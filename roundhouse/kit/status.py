"""Errors to `google.rpc.Status` and back: the one table between our errors and gRPC's codes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from roundhouse.kit import errors
from roundhouse.kit.metadata import metadata_value
from roundhouse.v1 import errors_pb2

DOMAIN = "roundhouse"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
_TOO_LARGE = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")  # what gRPC itself says
# Clients take 8 KiB of trailing metadata. Beyond that they see neither our code nor our message, only a transport's
# RESOURCE_EXHAUSTED; the message counts twice, and what quotes a caller may be as long as the caller likes.
_MAX_MESSAGE_BYTES = 1500
_MAX_DETAIL_BYTES = 2800  # of all entries of a list
_MAX_ENTRY_BYTES = 400  # of one text in the details
_Entry = TypeVar("_Entry", bound=Message)

STATUS: Mapping[type[BaseException], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooLong: grpc.StatusCode.OUT_OF_RANGE,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NotServed: grpc.StatusCode.UNIMPLEMENTED,
    errors.NotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoCapacity: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unreachable: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.Internal: grpc.StatusCode.INTERNAL,
    errors.Usage: grpc.StatusCode.INTERNAL,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
}

# Codes that only the transport or a foreign server sends, and what they mean to our callers.
_CLASS: Mapping[grpc.StatusCode, type[errors.RoundhouseError]] = {
    **{code: kind for kind, code in STATUS.items() if issubclass(kind, errors.RoundhouseError)},
    grpc.StatusCode.INTERNAL: errors.Internal,
    grpc.StatusCode.UNKNOWN: errors.Internal,
    grpc.StatusCode.DATA_LOSS: errors.Internal,
    grpc.StatusCode.CANCELLED: errors.Unreachable,  # by the server's end, not by us: nothing else reaches this table
}


def status_of(error: BaseException) -> grpc.StatusCode:
    """Returns the code of the nearest listed ancestor; INTERNAL for a stranger."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)


def reason_name(reason: errors.Reason) -> str:
    """Returns the reason as it stands in `ErrorInfo`, without the prefix of the enum."""
    return errors_pb2.ErrorReason.Name(reason).removeprefix(_PREFIX)


def to_status(error: BaseException) -> status_pb2.Status:
    """Returns the whole status with its details. A stranger's text never crosses the wire."""
    code = code_pb2.Code.Value(status_of(error).name)
    if isinstance(error, errors.RoundhouseError):
        message = _cut(error.message, _MAX_MESSAGE_BYTES)
        return status_pb2.Status(code=code, message=message, details=_details(error))
    if isinstance(error, TimeoutError):
        late = errors.DeadlineExceeded("the deadline passed: allow more time")
        return status_pb2.Status(code=code, message=late.message, details=_details(late))
    fault = errors.Internal("internal error: the log of the server has the traceback")
    return status_pb2.Status(code=code, message=fault.message, details=_details(fault))


def error_of(error: grpc.RpcError) -> errors.RoundhouseError:
    """Returns our error for what a call raised, details included; what no server of ours sent is mapped by its code."""
    code, message = error.code(), error.details() or ""
    kind = _CLASS.get(code, errors.Internal)
    packed = metadata_value(error.trailing_metadata(), STATUS_DETAILS_KEY)
    if isinstance(packed, bytes):
        with contextlib.suppress(DecodeError):  # what cannot be read says nothing; code and message still do
            return _from_details(kind, message, status_pb2.Status.FromString(packed))
    too_large = _TOO_LARGE.search(message)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and too_large is not None:
        plain = f"the message has {too_large[1]} bytes, and {too_large[2]} are taken at most: send less"
        return kind(plain, reason=errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE)
    if code is grpc.StatusCode.UNAVAILABLE:
        message = _cause(message)
    return kind(message or code.name)


def _cause(message: str) -> str:
    """Returns why there is no connection. Of a handshake gRPC tells its library's whole story, which ends with "OK"."""
    if "handshake" in message.lower():
        return "the TLS handshake failed, check --tls-ca"  # without a colon: callers quote what follows the last one
    return message.removesuffix(": OK")


def _details(error: errors.RoundhouseError) -> list[AnyMessage]:
    metadata = {key: _cut(value) for key, value in error.metadata.items()}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason_name(error.own_reason), domain=DOMAIN, metadata=metadata)
    ]
    if error.fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = (violation(field=_cut(each.field), description=_cut(each.description)) for each in error.fields)
        details.append(error_details_pb2.BadRequest(field_violations=_first(fields)))
    if error.quota:
        lack = error_details_pb2.QuotaFailure.Violation
        quota = (lack(subject=_cut(each.subject), description=_cut(each.description)) for each in error.quota)
        details.append(error_details_pb2.QuotaFailure(violations=_first(quota)))
    if error.resource is not None:
        kind, name = error.resource.type, _cut(error.resource.name)
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for message in details:
        each = AnyMessage()
        each.Pack(message)
        packed.append(each)
    return packed


def _cut(text: str, limit: int = _MAX_ENTRY_BYTES) -> str:
    """Returns the text, or as much of its beginning as takes `limit` bytes on the wire, and an ellipsis."""
    size = 0
    for count, char in enumerate(text):
        size += 1 if " " <= char <= "~" else 3 * len(char.encode())  # a status message is percent-encoded
        if size > limit:
            return text[:count] + "…"
    return text


def _first(entries: Iterable[_Entry]) -> list[_Entry]:
    """Returns as many of the first entries as there is room for."""
    kept: list[_Entry] = []
    left = _MAX_DETAIL_BYTES
    for each in entries:
        left -= each.ByteSize()
        if left < 0:
            break
        kept.append(each)
    return kept


def _from_details(
    kind: type[errors.RoundhouseError], message: str, status: status_pb2.Status
) -> errors.RoundhouseError:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    quota, retry, resource = (
        error_details_pb2.QuotaFailure(),
        error_details_pb2.RetryInfo(),
        error_details_pb2.ResourceInfo(),
    )
    present = {
        type(each) for each in (info, bad, quota, retry, resource) for packed in status.details if packed.Unpack(each)
    }
    name = _PREFIX + info.reason
    known = name in errors_pb2.ErrorReason.keys()  # noqa: SIM118 - not a dict; `in` on the wrapper is not defined
    return kind(
        status.message or message,
        reason=cast("errors.Reason", errors_pb2.ErrorReason.Value(name)) if known else None,
        fields=[errors.FieldViolation(each.field, each.description) for each in bad.field_violations],
        quota=[errors.QuotaViolation(each.subject, each.description) for each in quota.violations],
        resource=errors.Resource(resource.resource_type, resource.resource_name) if type(resource) in present else None,
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000 if type(retry) in present else None,
        metadata=dict(info.metadata),
    )
