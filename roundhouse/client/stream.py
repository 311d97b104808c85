"""Streamed answers, held so that leaving them cancels the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from roundhouse.client.connection import Connection
from roundhouse.kit.channel import cancelling

Event = TypeVar("Event")


class Watch(Generic[Event]):
    """What a watch sees, event by event. A broken one raises: whether to call again is for the caller to decide.

    The call begins at the first use. Leaving the block, or the loop, cancels it. field: of a response, which holds the
    events.
    """

    def __init__(self, connection: Connection, start: Callable[[], Any], field: str = "events") -> None:
        self._connection = connection
        self._start = start
        self._field = field
        self._call: Any = None
        self._place = 0  # of the address that was called
        self._is_over = False

    def cancel(self) -> None:
        """Ends the call unless it has ended; a loop over it then ends as if nothing more had come."""
        self._is_over = True
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncGenerator[Event]:
        """Yields the events."""
        if self._is_over:
            return
        try:
            async with cancelling(await self._begin()) as call:
                async for response in call:
                    for event in getattr(response, self._field):
                        yield event
        except grpc.RpcError as error:
            raise self._connection.error_of(error, self._place) from error
        except asyncio.CancelledError:
            if not was_left(self._is_over):
                raise
        finally:
            self._is_over = True

    async def _begin(self) -> Any:
        if self._call is None:
            self._place = await self._connection.choose()
            with self._connection.at(self._place):
                self._call = self._start()
            if self._is_over:  # since then
                self._call.cancel()
        return self._call


def was_left(is_over: bool) -> bool:
    """Tells whether a call that has ended was cancelled by us, not by a cancel of the task that reads it."""
    task = asyncio.current_task()
    return is_over and not (task is not None and task.cancelling())
