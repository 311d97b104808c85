"""Seconds as floats here, `Timestamp` and `Duration` on the wire."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 1_000_000_000


def to_timestamp(seconds: float) -> Timestamp:
    """Returns the time `seconds` after 1970 began."""
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return Timestamp(seconds=whole, nanos=nanos)


def from_timestamp(timestamp: Timestamp) -> float:
    """Returns seconds since 1970."""
    return timestamp.seconds + timestamp.nanos / _NANOS


def to_duration(seconds: float) -> Duration:
    """Returns a duration; both parts have the sign of the whole, as the wire wants it."""
    nanos = round(seconds * _NANOS)
    sign = -1 if nanos < 0 else 1
    whole, rest = divmod(abs(nanos), _NANOS)
    return Duration(seconds=sign * whole, nanos=sign * rest)


def from_duration(duration: Duration) -> float:
    """Returns seconds."""
    return duration.seconds + duration.nanos / _NANOS
