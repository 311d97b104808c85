"""The errors that a caller can be told about, by who can cure them.

A message is lower case, names the thing and the number, and ends with the cure. What is raised but not listed here is
a fault of ours: the caller learns INTERNAL and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from roundhouse.v1 import errors_pb2

Reason = errors_pb2.ErrorReason


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, by its path, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A thing that is used up, and by how much."""

    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource that an error is about."""

    type: str
    name: str


class RoundhouseError(Exception):
    """Base of all errors that a caller can be told about; itself never raised."""

    reason: ClassVar[Reason] = errors_pb2.ERROR_REASON_INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        fields: Sequence[FieldViolation] = (),
        quota: Sequence[QuotaViolation] = (),
        resource: Resource | None = None,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.own_reason = type(self).reason if reason is None else reason
        self.fields = tuple(fields)
        self.quota = tuple(quota)
        self.resource = resource
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})


class InvalidArgument(RoundhouseError):
    """The request is wrong whatever the state; the caller fixes it."""

    reason = errors_pb2.ERROR_REASON_FIELD_INVALID


class TooLong(RoundhouseError):
    """The request asks for more than there can be, or for what is no longer kept."""

    reason = errors_pb2.ERROR_REASON_PROMPT_TOO_LONG


class NotFound(RoundhouseError):
    """There is no such thing; the caller checks the name."""

    reason = errors_pb2.ERROR_REASON_DEPLOYMENT_NOT_FOUND


class Conflict(RoundhouseError):
    """Somebody else wrote in between; the caller reads again, then writes."""

    reason = errors_pb2.ERROR_REASON_CONFLICT


class AlreadyExists(RoundhouseError):
    """The name is taken; the caller picks another, or sends the same body."""

    reason = errors_pb2.ERROR_REASON_DEPLOYMENT_EXISTS


class DeadlineExceeded(RoundhouseError):
    """Time was up; the caller allows more."""

    reason = errors_pb2.ERROR_REASON_DEADLINE_EXCEEDED


class NotServed(RoundhouseError):
    """This version does not serve it; the caller uses one that does."""

    reason = errors_pb2.ERROR_REASON_NOT_SERVED


class NotReady(RoundhouseError):
    """The state does not allow it; the caller changes the state first."""

    reason = errors_pb2.ERROR_REASON_NO_NODE


class NoCapacity(RoundhouseError):
    """There is not enough; the caller waits or asks for less."""

    reason = errors_pb2.ERROR_REASON_DOES_NOT_FIT


class Unreachable(RoundhouseError):
    """Somebody does not answer; the caller tries this call again, with backoff."""

    reason = errors_pb2.ERROR_REASON_INTERRUPTED


class Unauthenticated(RoundhouseError):
    """The caller does not show who it is."""

    reason = errors_pb2.ERROR_REASON_ENGINE_KEY_INVALID


class Forbidden(RoundhouseError):
    """The caller is known and may not do this; somebody who may has to do it, or to allow it."""

    reason = errors_pb2.ERROR_REASON_ROLE_TOO_LOW


class Internal(RoundhouseError):
    """A fault of ours that a server reported; raised on the client's side only."""

    reason = errors_pb2.ERROR_REASON_INTERNAL


class Usage(RoundhouseError):
    """A process was started wrongly, or cannot start here: one line, exit status 2. Never crosses the wire."""
