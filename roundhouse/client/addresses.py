"""Several addresses of one cluster, of which a client uses one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from roundhouse.kit.authorized import Authorized
from roundhouse.kit.errors import Usage

CONNECT_S = 3.0  # for one address to be reached, while there may be another
_UNSETTLED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)

Channel = grpc.aio.Channel | Authorized


def addresses_of(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the addresses in a text with commas, or in a sequence; raises Usage if there is none."""
    listed = addresses.split(",") if isinstance(addresses, str) else addresses
    found = tuple(each.strip() for each in listed if each.strip())
    if not found:
        raise Usage("no address: give HOST:PORT")
    return found


async def is_ready(channel: grpc.aio.Channel, most_s: float) -> bool:
    """Connects, and tells whether that went well. One that failed just now is not tried before its backoff."""
    state = channel.get_state(try_to_connect=True)
    try:
        async with asyncio.timeout(most_s):
            while state in _UNSETTLED:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY


class Switch:
    """What stubs need of a channel; each call of theirs goes to the channel that is in use then."""

    def __init__(self, channels: Sequence[Channel], in_use: Callable[[], int]) -> None:
        self._channels, self._in_use = channels, in_use

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with one request and one answer."""
        return self._switching([each.unary_unary(*args, **kwargs) for each in self._channels])

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with one request and a stream of answers."""
        return self._switching([each.unary_stream(*args, **kwargs) for each in self._channels])

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with a stream of requests and one answer."""
        return self._switching([each.stream_unary(*args, **kwargs) for each in self._channels])

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a method with streams of both."""
        return self._switching([each.stream_stream(*args, **kwargs) for each in self._channels])

    def _switching(self, methods: Sequence[Any]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return methods[self._in_use()](*args, **kwargs)

        return call
