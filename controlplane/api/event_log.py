"""Keeps what happened: gathers it in memory, writes it at most once a second, and has a copy of all that is kept."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import islice

import structlog

from controlplane import wire
from controlplane.events import ring
from controlplane.events.happenings import Happening
from controlplane.events.ring import Kept, Noted
from controlplane.fleet.table import Table
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import EventLogRecord, EventRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Conflict, Unreachable
from roundhouse.v1.event_pb2 import Event

log = structlog.get_logger()

PERIOD_S = 1.0  # between two writes, however much happens
MOST = 100  # events in one write: some 50 KB
MOST_PENDING = 1000  # different things that wait to be written; beyond that the oldest are lost

Pending = dict[tuple[str, str, str], Noted]


class EventLog:
    """The events of the cluster. `table` has them by place; `dropped_revision` is that of the newest overwritten."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.table: Table[Event] = Table(store, wire.EVENTS, lambda value: EventRecord.FromString(value).event)
        self.dropped_revision = 0
        self._pending: Pending = {}
        self._batch: tuple[str, Pending] | None = None  # of which it is not known that it is written
        self._hint = asyncio.Event()

    def note(self, happenings: Iterable[Happening]) -> None:
        """Has these written soon; what happened before and waits to be written is counted."""
        now_s = self._clock.now()
        for each in happenings:
            key = ring.key_of(each.object, each.reason, each.message)
            before = self._pending.pop(key, None)
            self._pending[key] = Noted(each, now_s, now_s) if before is None else before.again(each, now_s)
            if len(self._pending) > MOST_PENDING:
                del self._pending[next(iter(self._pending))]
            self._hint.set()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Loads what is kept, then keeps up with it for the block."""
        _, head = await self._head()
        self.dropped_revision = head.dropped_revision
        await self.table.load()
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self.table.follow(), name=f"follow {wire.EVENTS}")
            try:
                yield
            finally:
                following.cancel()

    async def run(self) -> None:
        """Writes what is noted until cancelled."""
        while True:
            await self._hint.wait()
            try:
                await self._write()
            except (Conflict, Unreachable) as error:
                log.warning("events not written", error=error.message)
            await asyncio.sleep(PERIOD_S)

    async def _write(self) -> None:
        batch_id, batch = self._batch = self._batch or (str(uuid.uuid4()), self._take())
        revision, head = await self._head()
        await self.table.reached(revision)
        if head.batch_id != batch_id:
            kept = {place: Kept(row.value, row.revision) for place, row in self.table.rows.items()}
            made = ring.write(kept, batch.values(), max(1, head.next_number), head.dropped_revision)
            head = EventLogRecord(
                next_number=made.next_number, dropped_revision=made.dropped_revision, batch_id=batch_id
            )
            puts = {wire.EVENTS + place: _record(event) for place, event in made.events.items()}
            puts[wire.EVENT_LOG_KEY] = head.SerializeToString()
            await self._store.commit([Compare(wire.EVENT_LOG_KEY, revision)], puts)
        self.dropped_revision = head.dropped_revision
        self._batch = None
        if not self._pending:
            self._hint.clear()

    def _take(self) -> Pending:
        taken = dict(islice(self._pending.items(), MOST))
        for key in taken:
            del self._pending[key]
        return taken

    async def _head(self) -> tuple[int, EventLogRecord]:
        """Returns where the next event goes, and the revision at which that was written."""
        entry = await self._store.get(wire.EVENT_LOG_KEY)
        return (0, EventLogRecord()) if entry is None else (entry.revision, EventLogRecord.FromString(entry.value))


def _record(event: Event) -> bytes:
    return EventRecord(event=event).SerializeToString()


def by_object(events: Mapping[str, Event]) -> Mapping[str, Event]:
    """Returns the newest event of each object."""
    ordered = sorted(events.values(), key=lambda each: (each.last_time.ToNanoseconds(), each.name))
    return {each.object: each for each in ordered}
