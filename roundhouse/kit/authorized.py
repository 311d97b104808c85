"""A channel that sends a token with every call."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import grpc

from roundhouse.kit.errors import Usage
from roundhouse.kit.tls import is_loopback

AUTHORIZATION = "authorization"


class Authorized:
    """What stubs need of a channel; each call of theirs carries the token as metadata.

    gRPC's own credentials for calls are not for plaintext, which is fine on one machine.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = ((AUTHORIZATION, f"Bearer {token}"),)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with one request and one answer."""
        return functools.partial(self._channel.unary_unary(*args, **kwargs), metadata=self._metadata)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with one request and a stream of answers."""
        return functools.partial(self._channel.unary_stream(*args, **kwargs), metadata=self._metadata)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with a stream of requests and one answer."""
        return functools.partial(self._channel.stream_unary(*args, **kwargs), metadata=self._metadata)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with streams of both."""
        return functools.partial(self._channel.stream_stream(*args, **kwargs), metadata=self._metadata)


def read_token(file: Path) -> str:
    """Returns the token in a file; raises Usage if it cannot be read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise Usage(f"the token {file} cannot be read ({error}): check its path and permissions") from error


def check_token(token: str, address: str, *, has_tls: bool) -> None:
    """Raises Usage for what cannot be sent as a token, and for one that others could read on its way."""
    if not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise Usage("the token has signs that no token has: give what roundhouse token create showed, and no more")
    host = address if address.startswith("unix:") else address.rpartition(":")[0]
    if not (has_tls or is_loopback(host)):
        raise Usage(
            f"refusing to send a token to {host} in the clear: give the authority of the control plane's certificate "
            "with --tls-ca, or as ca= in a program"
        )
