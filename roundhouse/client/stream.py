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


class Stream(Generic[Event]):
    """The events of one streaming call, which begins at the first use. Leaving the block, or the loop, cancels it.

    field: of a response, which holds them.
    """

    def __init__(self, connection: Connection, start: Callable[[], Any], field: str = "events") -> None:
        self._connection = connection
        self._start = start
        self._field = field
        self._call: Any = None
        self._is_over = False

    def cancel(self) -> None:
        """Ends the call unless it has ended; a loop over it then ends as if nothing more had come."""
        self._is_over = True
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _begin(self) -> Any:
        if self._call is None:
            self._call = self._start()
        return self._call

    async def _read(self) -> AsyncGenerator[Event]:
        if self._is_over:
            return
        try:
            async with cancelling(self._begin()) as call:
                async for response in call:
                    for event in getattr(response, self._field):
                        yield event
        except grpc.RpcError as error:
            raise self._connection.error_of(error) from error
        except asyncio.CancelledError:
            if not self._was_left():
                raise
        finally:
            self._is_over = True

    def _was_left(self) -> bool:
        """Tells whether the call was cancelled by `cancel`, not the task that reads it."""
        task = asyncio.current_task()
        return self._is_over and not (task is not None and task.cancelling())


class Watch(Stream[Event]):
    """What a watch sees, event by event. A broken one raises: whether to call again is for the caller to decide."""

    def __aiter__(self) -> AsyncGenerator[Event]:
        return self._read()
