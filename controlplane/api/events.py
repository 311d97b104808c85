"""Serves `EventService`: shows what happened, and what happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane import wire
from controlplane.api.event_log import EventLog
from controlplane.api.paging import page
from controlplane.api.watching import Cursors, stream
from controlplane.fleet.changes import Marks
from controlplane.fleet.table import Row
from controlplane.store.cursors import format_cursor, parse_cursor
from roundhouse.kit.errors import TooLong
from roundhouse.kit.fields import invalid
from roundhouse.v1 import errors_pb2
from roundhouse.v1 import event_service_pb2 as pb
from roundhouse.v1.event_pb2 import Event
from roundhouse.v1.watch_pb2 import Bookmark

CURSOR = "events"
_OBJECTS = (wire.DEPLOYMENT, wire.REPLICA, wire.NODE)


class EventApi:
    """The methods of `EventService`."""

    def __init__(self, log: EventLog, *, epoch: str) -> None:
        self._log, self._epoch = log, epoch

    async def ListEvents(self, request: pb.ListEventsRequest, _: Any) -> pb.ListEventsResponse:
        """Returns a page of events."""
        _check(request.object)
        events = [row.value for row in self._log.table.rows.values() if _is_of(row.value, request.object)]
        part = page(
            sorted(events, key=lambda each: each.name),
            lambda each: each.name,
            lambda each: each,
            epoch=self._epoch,
            kind=f"list-events-of {request.object.replace('/', ' ')}",
            size=request.page_size,
            token=request.page_token,
            revision=self._log.table.revision,
        )
        cursor = format_cursor(self._epoch, CURSOR, part.revision)
        return pb.ListEventsResponse(events=part.shown, next_page_token=part.next_token, cursor=cursor)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> None:
        """Streams events."""
        _check(request.object)
        table, marks = self._log.table, Marks[str]()
        with table.changes.to(lambda change: marks.mark(change.key)):
            told = self._begin(request.cursor)
            first = self._notices([row for row in table.rows.values() if row.revision > told], request.object)
            cursors = Cursors(request.cursor, self._now)
            told = table.revision

            def look(places: Sequence[str]) -> Sequence[pb.EventNotice]:
                nonlocal told
                self._require_kept(told)
                told = table.revision
                return cursors.put_on(self._notices([table.rows[each] for each in places], request.object))

            await stream(
                context,
                first=cursors.put_on(first),
                marks=marks,
                look=look,
                bookmark=lambda: pb.EventNotice(bookmark=Bookmark(), cursor=self._now()),
                message=lambda events: pb.WatchEventsResponse(events=events),
            )

    def _begin(self, cursor: str) -> int:
        """Returns the revision behind which a watch begins; raises TooLong (RELIST) if not all of that is kept."""
        if not cursor:
            return 0
        revision = parse_cursor(self._epoch, CURSOR, cursor).revision
        if revision > self._log.table.revision:
            raise _relist("the cursor is ahead of what has happened")
        self._require_kept(revision)
        return revision

    def _require_kept(self, told: int) -> None:
        if self._log.dropped_revision > told:
            raise _relist("events have happened and are no longer kept")

    def _notices(self, rows: Sequence[Row[Event]], object_: str) -> Sequence[pb.EventNotice]:
        ordered = sorted(rows, key=lambda row: (row.revision, row.value.name))
        return [pb.EventNotice(changed=row.value) for row in ordered if _is_of(row.value, object_)]

    def _now(self) -> str:
        return format_cursor(self._epoch, CURSOR, self._log.table.revision)


def _check(object_: str) -> None:
    if object_ and all(each.match(object_) is None for each in _OBJECTS):
        forms = ", ".join(each.pattern for each in _OBJECTS)
        raise invalid("object", f'"{object_[:100]}" is malformed: use one of {forms}, or leave it empty')


def _is_of(event: Event, object_: str) -> bool:
    return not object_ or event.object == object_ or event.object.startswith(f"{object_}/")


def _relist(why: str) -> TooLong:
    return TooLong(f"{why}: list again and go on from there", reason=errors_pb2.ERROR_REASON_RELIST)
