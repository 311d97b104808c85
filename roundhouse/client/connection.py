"""The one connection of a client: makes its calls, and turns what they raise into errors of the kit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc

from roundhouse.client.addresses import Switch, addresses_of, is_ready
from roundhouse.kit.authorized import Authorized, check_token
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import DeadlineExceeded, Internal, RoundhouseError, Unreachable
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
    """A channel to each of one or several addresses, of which one is in use.

    addresses: of gateways of one cluster, as a sequence or with commas. token: what every call carries, if anything.
    timeout_s: of calls without a limit of their own. Raises Usage for a token that others could read on its way, and if
    there is no address.
    """

    def __init__(
        self, addresses: str | Sequence[str], *, ca: Path | None, token: str | None = None, timeout_s: float
    ) -> None:
        self.addresses = addresses_of(addresses)
        if token is not None:
            for each in self.addresses:
                check_token(token, each, has_tls=ca is not None)
        self._ca, self._token = ca, token
        self._timeout_s = timeout_s
        self._in_use = 0
        self._channels: tuple[grpc.aio.Channel, ...] = ()
        self._stubs: dict[object, object] = {}

    @property
    def address(self) -> str:
        """The address in use."""
        return self.addresses[self._in_use]

    @property
    def is_open(self) -> bool:
        """Tells whether calls can be made."""
        return bool(self._channels)

    def open(self) -> None:
        """Opens the channels on the running event loop; one connects when it is first used."""
        if not self._channels:
            self._channels = tuple(open_channel(each, ca=self._ca) for each in self.addresses)

    async def close(self) -> None:
        """Closes the channels and ends every call on them."""
        channels, self._channels = self._channels, ()
        self._stubs.clear()
        for each in channels:
            await each.close()

    def move_on(self) -> None:
        """Takes the next address into use, if there are several."""
        self._in_use = (self._in_use + 1) % len(self.addresses)

    async def settle(self, within_s: float | None = None) -> bool:
        """Takes the first address into use that answers, beginning with the present one; returns whether one does.

        Raises NotOpen.
        """
        try:
            async with asyncio.timeout(within_s):
                for _ in self.addresses:
                    if not self._channels:
                        raise NotOpen
                    if await is_ready(self._channels[self._in_use]):
                        return True
                    self.move_on()
        except TimeoutError:
            pass
        return False

    async def choose(self) -> None:
        """Settles if there is a choice. With one address, a call finds out by itself whether that answers."""
        if len(self.addresses) > 1:
            await self.settle()

    def stub(self, kind: Callable[[Any], Stub]) -> Stub:
        """Returns the stub of this class, one per connection; raises NotOpen if there is none."""
        if not self._channels:
            raise NotOpen
        if kind not in self._stubs:
            token = self._token
            channels = [each if token is None else Authorized(each, token) for each in self._channels]
            self._stubs[kind] = kind(channels[0] if len(channels) == 1 else Switch(channels, lambda: self._in_use))
        stub: Any = self._stubs[kind]
        return stub  # type: ignore[no-any-return]

    async def unary(self, method: Callable[..., Any], request: object, timeout_s: float | None = None) -> Any:
        """Calls a method with one answer; raises an error of the kit if it fails."""
        await self.choose()
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
        # What stands between us and a server, a proxy for example, resets streams with codes of its own.
        if isinstance(ours, Unreachable) or (isinstance(ours, Internal) and "RST_STREAM" in ours.message):
            # gRPC nests causes: "failed to connect to all addresses; last error: ...: Connection refused (111)".
            cause = ours.message.rsplit(": ", 1)[-1]
            return NotConnected(f"{self.address} does not answer ({cause}): is the control plane running there?")
        return ours
