"""A connection to SQLite that one thread of its own uses, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from sqlite3 import SQLITE_FULL, Connection, OperationalError
from typing import Concatenate, ParamSpec, TypeVar

from roundhouse.kit.errors import Unreachable
from roundhouse.v1 import errors_pb2

P = ParamSpec("P")
T = TypeVar("T")


class Door:
    """Runs functions of a connection, one after the other. Made by `open_door`."""

    def __init__(self, connection: Connection, thread: ThreadPoolExecutor, timeout_s: float) -> None:
        self._connection, self._thread, self._timeout_s = connection, thread, timeout_s

    async def run(self, use: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns what `use` returns.

        What has begun is not interrupted: it may still happen after the caller was told that it took too long, or left.
        Raises Unreachable (STORE_UNKNOWN) if it takes too long, or SQLite cannot do it now.
        """
        future = asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: use(self._connection, *args, **kwargs)
        )
        try:
            async with asyncio.timeout(self._timeout_s):  # wait_for of Python 3.11 may swallow a cancel
                return await future
        except TimeoutError:
            raise _unknown(f"did not answer within {self._timeout_s:g} s") from None
        except OperationalError as error:  # locked, an I/O error: not known to have been done
            if getattr(error, "sqlite_errorcode", None) == SQLITE_FULL:
                raise _full() from error
            raise _unknown(f"answered: {error}") from error


@contextlib.asynccontextmanager
async def open_door(connect: Callable[[], Connection], name: str, timeout_s: float) -> AsyncIterator[Door]:
    """Opens a connection on a thread called `name` for the block; what has begun is finished before the block ends."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) as thread:
        connection = await loop.run_in_executor(thread, connect)
        try:
            yield Door(connection, thread, timeout_s)
        finally:
            await loop.run_in_executor(thread, connection.close)


def _full() -> Unreachable:
    """Returns the error of a write for which there was no room: it is rolled back, and what was there stays."""
    return Unreachable(
        "the disk of the store is full, and nothing was written: make room on it, then try again",
        reason=errors_pb2.ERROR_REASON_STORE_UNKNOWN,
    )


def _unknown(what: str) -> Unreachable:
    return Unreachable(
        f"the store {what}: the write may or may not have been made; read again, then decide",
        reason=errors_pb2.ERROR_REASON_STORE_UNKNOWN,
    )
