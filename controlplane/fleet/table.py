"""A copy in memory of what the store keeps under one prefix."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import structlog

from controlplane.fleet.changes import Changes
from roundhouse.kit.errors import TooLong, Unreachable
from roundhouse.kit.latest import Latest
from roundhouse.kit.tasks import looping

if TYPE_CHECKING:
    from controlplane.store.protocol import Batch, Entry, Listing

log = structlog.get_logger()

VISIBLE_S = 2.0  # how long an answer waits until reads show what was written; the write itself is durable by then
RETRY_S = 0.5  # a store that was too slow is asked again; what it holds has not gone

M = TypeVar("M")


class Records(Protocol):
    """What a copy needs of the store."""

    async def list(self, prefix: str) -> Listing:
        """Returns the entries under a prefix."""

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        """Yields what changes behind a revision."""


@dataclass(frozen=True, slots=True)
class Row(Generic[M]):
    """A record, and the revisions at which it was made and last written."""

    value: M
    create_revision: int
    revision: int


@dataclass(frozen=True, slots=True)
class RowChange(Generic[M]):
    """A record that was written or deleted. `key` is without the prefix."""

    key: str
    before: Row[M] | None
    after: Row[M] | None


class Table(Generic[M]):
    """The records under one prefix, as they were at `revision`."""

    def __init__(self, records: Records, prefix: str, parse: Callable[[bytes], M]) -> None:
        self._records, self.prefix, self._parse = records, prefix, parse
        self._rows: dict[str, Row[M]] = {}
        self._revision = Latest(0)
        self.changes: Changes[RowChange[M]] = Changes()

    @property
    def rows(self) -> Mapping[str, Row[M]]:
        """The records by key, without the prefix."""
        return self._rows

    @property
    def revision(self) -> int:
        """The revision of the store that the copy has reached."""
        return self._revision.get()

    async def reached(self, revision: int) -> None:
        """Waits until the copy holds what was written at `revision`."""
        async for each in self._revision.watch():
            if each >= revision:
                return

    async def shown(self, revision: int) -> None:
        """The same, but for no longer than VISIBLE_S seconds: what was written is durable, and an answer may go."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(VISIBLE_S):
                await self.reached(revision)

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Loads everything, then keeps it up to date for the block; if that fails, so does the block."""
        await self.load()
        async with looping({f"follow {self.prefix}": self.follow}):
            yield

    async def load(self) -> None:
        """Takes over the whole of what is there now."""
        listing = await self._records.list(self.prefix)
        fresh = {self._short(each.key): each for each in listing.entries}
        for key in [each for each in self._rows if each not in fresh]:
            self._put(key, None)
        for key, entry in fresh.items():
            self._put(key, entry)
        self._revision.set(listing.revision)

    async def follow(self) -> None:
        """Keeps up with the store until cancelled; `load` comes first."""
        is_behind = False
        while True:
            try:
                if is_behind:
                    await self.load()
                    is_behind = False
                async for batch in self._records.watch(self.prefix, self.revision):
                    for change in batch.changes:
                        self._put(self._short(change.key), change.entry)
                    self._revision.set(batch.revision)
            except TooLong:
                log.warning("store compacted, listing again", prefix=self.prefix, revision=self.revision)
                is_behind = True
            except Unreachable as error:
                log.warning("store does not answer", prefix=self.prefix, error=error.message)
                await asyncio.sleep(RETRY_S)

    def _put(self, key: str, entry: Entry | None) -> None:
        before = self._rows.get(key)
        if entry is None:
            after = None
            self._rows.pop(key, None)
        elif before is not None and before.revision == entry.revision:
            return
        else:
            after = self._rows[key] = Row(self._parse(entry.value), entry.create_revision, entry.revision)
        self.changes.tell(RowChange(key, before, after))

    def _short(self, key: str) -> str:
        return key.removeprefix(self.prefix)
