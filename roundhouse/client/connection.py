"""The one connection of a client: makes its calls, and turns what they raise into errors of the kit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from roundhouse.kit.authorized import Authorized, check_token
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import DeadlineExceeded, RoundhouseError, Unreachable
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.status import STATUS_DETAILS_KEY, error_of

Stub = TypeVar("Stub")


class NotConnected(Unreachable):
    """Nobody answers at the address, or the connection broke. Raised here, never sent by a server."""


class NotOpen(RuntimeError):
    """The client was used before it was opened or after it was closed: a fault of the program, not of the call."""

    def __init__(self) -> None:
        super().__init__("the client is not open: use it inside `async with Client(...)` or `with SyncClient(...)`")


class Connection:
    """A channel to one address. Calls without a time limit of their own get `timeout_s`.

    token: what every call carries, if anything. Raises Usage for one that others could read on its way.
    """

    def __init__(self, address: str, *, ca: Path | None, token: str | None = None, timeout_s: float) -> None:
        if token is not None:
            check_token(token, address, has_tls=ca is not None)
        self.address = address
        self._ca, self._token = ca, token
        self._timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[object, object] = {}

    def open(self) -> None:
        """Opens the channel on the running event loop; it connects at the first call."""
        if self._channel is None:
            self._channel = open_channel(self.address, ca=self._ca)

    async def close(self) -> None:
        """Closes the channel and ends every call on it."""
        channel, self._channel = self._channel, None
        self._stubs.clear()
        if channel is not None:
            await channel.close()

    def stub(self, kind: Callable[[Any], Stub]) -> Stub:
        """Returns the stub of this class, one per connection; raises NotOpen if there is none."""
        if self._channel is None:
            raise NotOpen
        if kind not in self._stubs:
            channel = self._channel
            self._stubs[kind] = kind(channel if self._token is None else Authorized(channel, self._token))
        stub: Any = self._stubs[kind]
        return stub  # type: ignore[no-any-return]

    async def unary(self, method: Callable[..., Any], request: object, timeout_s: float | None = None) -> Any:
        """Calls a method with one answer; raises an error of the kit if it fails."""
        try:
            return await method(request, timeout=self._timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise self.error_of(error) from error

    def error_of(self, error: grpc.RpcError) -> RoundhouseError:
        """Returns our error for what a call raised; one that no server of ours made names the address."""
        ours = error_of(error)
        if metadata_value(error.trailing_metadata(), STATUS_DETAILS_KEY) is not None:
            return ours
        if isinstance(ours, DeadlineExceeded):
            return DeadlineExceeded(f"{self.address} did not finish in time: allow more time")
        if isinstance(ours, Unreachable):
            # gRPC nests causes: "failed to connect to all addresses; last error: ...: Connection refused (111)".
            cause = ours.message.rsplit(": ", 1)[-1]
            return NotConnected(f"{self.address} does not answer ({cause}): is the control plane running there?")
        return ours
