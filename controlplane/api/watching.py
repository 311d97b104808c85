"""Streams what there is, then what changes, at the pace of the reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from controlplane.api.paging import fitting, size_of
from controlplane.fleet.changes import Marks

BOOKMARK_S = 30.0
# After each message: what changes meanwhile goes into the next. A thousand nodes that report every second would be a
# thousand messages, each of which costs more than what it carries.
GATHER_S = 0.05
_MOST = 100  # events in one message; a node with eight GPUs takes about 2 KiB, a deployment up to 64 KiB

K = TypeVar("K", bound=Hashable)
E = TypeVar("E")


async def stream(
    context: Any,
    *,
    first: Sequence[E],
    marks: Marks[K],
    look: Callable[[Sequence[K]], Sequence[E]],
    bookmark: Callable[[], E],
    message: Callable[[Iterable[E]], Any],
    size: Callable[[Any], int] = size_of,
    bookmark_s: float = BOOKMARK_S,
) -> None:
    """Writes `first` and a bookmark, then what `look` sees in the things that were marked; never ends by itself.

    A bookmark comes every `bookmark_s` seconds, whatever else does; changes at most every GATHER_S seconds.
    Marks gather while a write waits for the reader, so one that is behind gets the newest state and no backlog. size:
    of an event, in bytes.
    """
    now_s = asyncio.get_running_loop().time
    await _write(context, [*first, bookmark()], message, size)
    due_s = now_s() + bookmark_s
    while True:
        events = list(look(await marks.take(max(0.0, due_s - now_s()))))
        if now_s() >= due_s:
            events.append(bookmark())
            due_s = now_s() + bookmark_s
        if events:
            await _write(context, events, message, size)
            await asyncio.sleep(GATHER_S)


class Placed(Protocol):
    """An event that says where it stands."""

    cursor: str


P = TypeVar("P", bound=Placed)


class Cursors:
    """Puts cursors on the events of a stream, look by look.

    A look may take several messages, and the stream may break between them. So the last event alone stands where the
    look was made; whoever goes on behind another is told again of all deletions since the look before. What is not
    deleted comes anyhow.
    """

    def __init__(self, begin: str, now: Callable[[], str]) -> None:
        self._before, self._now = begin, now

    def put_on(self, events: Sequence[P]) -> Sequence[P]:
        """Returns the events of one look, with their cursors."""
        before, self._before = self._before, self._now()
        for each in events:
            each.cursor = before
        if events:
            events[-1].cursor = self._before
        return events


async def _write(
    context: Any, events: Sequence[E], message: Callable[[Iterable[E]], Any], size: Callable[[Any], int]
) -> None:
    sent_count = 0
    while sent_count < len(events):
        part = list(fitting(events[sent_count : sent_count + _MOST], _MOST, size))
        await context.write(message(part))
        sent_count += len(part)
