"""Channels as every client of ours opens them, and the one way to hold a streaming call."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc

from roundhouse.kit.tls import ClientTls, channel_credentials

_OPTIONS = (
    # Defaults wait up to two minutes before they look again for a server that came back. `initial` and `max` bound that
    # wait. `min` does not: it is the time that one attempt has, TLS included, and a busy machine may need seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)


class Cancellable(Protocol):
    """What can be cancelled: every call of grpc.aio."""

    def cancel(self) -> bool:
        """Ends the call unless it has ended."""


Call = TypeVar("Call", bound=Cancellable)


def open_channel(
    address: str,
    *,
    ca: Path | None = None,
    client: ClientTls | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """Returns a channel to `HOST:PORT`: in the clear, or with TLS if the authority's PEM file is given.

    client: the certificate to show there, which takes TLS.
    """
    merged = [*_OPTIONS, *options]
    if ca is None:
        return grpc.aio.insecure_channel(address, options=merged)
    return grpc.aio.secure_channel(address, channel_credentials(ca, client), options=merged)


class _Cancelling(Generic[Call]):
    # Not a generator: a loop that ends closes all its generators at once, and would close this one under its user.
    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aenter__(self) -> Call:
        return self._call

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()


def cancelling(call: Call) -> contextlib.AbstractAsyncContextManager[Call, None]:
    """Holds a call for the block and cancels it on leaving.

    grpcio 1.83 and later never cancel a call that is merely dropped.
    """
    return _Cancelling(call)
