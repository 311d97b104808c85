"""The one connection of a client: makes its calls, and turns what they raise into errors of the kit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc

from roundhouse.client.addresses import CONNECT_S, Switch, addresses_of, is_ready
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
        self._at: int | None = None  # of the block of `at`
        self._channels: tuple[grpc.aio.Channel, ...] = ()
        self._stubs: dict[object, object] = {}

    @property
    def address(self) -> str:
        """The address in use."""
        return self.addresses[self._in_use]

    @property
    def in_use(self) -> int:
        """The place of that address among all."""
        return self._in_use

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

    def move_on(self, at: int) -> int:
        """Returns the place behind `at`, and takes it into use if `at` is: not if another call has moved on already."""
        behind = (at + 1) % len(self.addresses)
        if self._in_use == at:
            self._in_use = behind
        return behind

    async def settle(self, within_s: float | None = None, *, first: int | None = None) -> int | None:
        """Returns the place of the first address that answers, None if none does in time; those before it are left.

        first: where to begin; with the one in use if None. Raises NotOpen.
        """
        at = self._in_use if first is None else first
        # Each has its part of the time, so that one behind a cut cable leaves some to the others.
        most_s = CONNECT_S if within_s is None else min(CONNECT_S, within_s / len(self.addresses))
        for _ in self.addresses:
            if not self._channels:
                raise NotOpen
            if await is_ready(self._channels[at], most_s):
                return at
            at = self.move_on(at)
        return None

    async def choose(self, within_s: float | None = None, *, first: int | None = None) -> int:
        """Returns the place of the address to call: the first that answers, or one that can say that none does.

        Waits for the time of a call at the most, and not at all with one address: a call finds out by itself.
        """
        at: int | None = 0
        if len(self.addresses) > 1:
            at = await self.settle(self._timeout_s if within_s is None else within_s, first=first)
        return self._in_use if at is None else at

    @contextlib.contextmanager
    def at(self, place: int) -> Iterator[None]:
        """Has the calls that are made in the block go to the address at `place`, which awaits nothing."""
        self._at = place
        try:
            yield
        finally:
            self._at = None

    def stub(self, kind: Callable[[Any], Stub]) -> Stub:
        """Returns the stub of this class, one per connection; raises NotOpen if there is none."""
        if not self._channels:
            raise NotOpen
        if kind not in self._stubs:
            token = self._token
            channels = [each if token is None else Authorized(each, token) for each in self._channels]
            self._stubs[kind] = kind(channels[0] if len(channels) == 1 else Switch(channels, self._place))
        stub: Any = self._stubs[kind]
        return stub  # type: ignore[no-any-return]

    async def unary(
        self,
        method: Callable[..., Any],
        request: object,
        timeout_s: float | None = None,
        *,
        first: int | None = None,
    ) -> Any:
        """Calls a method with one answer; raises an error of the kit if it fails. first: as for `settle`."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        began_s = time.monotonic()
        place = await self.choose(timeout_s, first=first)
        try:
            with self.at(place):
                call = method(request, timeout=max(0.0, timeout_s - (time.monotonic() - began_s)))
            return await call
        except grpc.RpcError as error:
            raise self.error_of(error, place) from error

    def error_of(self, error: grpc.RpcError, place: int) -> RoundhouseError:
        """Returns our error for what a call at `place` raised; one that no server of ours made names the address."""
        ours, address = error_of(error), self.addresses[place]
        if metadata_value(error.trailing_metadata(), STATUS_DETAILS_KEY) is not None:
            return ours
        if isinstance(ours, DeadlineExceeded):
            return DeadlineExceeded(f"{address} did not finish in time: allow more time")
        # What stands between us and a server, a proxy for example, resets streams with codes of its own.
        if isinstance(ours, Unreachable) or (isinstance(ours, Internal) and "RST_STREAM" in ours.message):
            # gRPC nests causes: "failed to connect to all addresses; last error: ...: Connection refused (111)".
            cause = ours.message.rsplit(": ", 1)[-1]
            return NotConnected(f"{address} does not answer ({cause}): is the control plane running there?")
        return ours

    def _place(self) -> int:
        return self._in_use if self._at is None else self._at
