"""A watch as the contract has it: all objects, a bookmark, then every change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from roundhouse.kit.latest import Latest
from roundhouse.kit.service import Context
from roundhouse.v1 import watch_pb2


async def write_changes(
    context: Context,
    changes: Latest[None],
    response: Callable[..., Any],
    event: Callable[..., Any],
    present: Callable[[], Mapping[str, Any]],
) -> None:
    """Writes what is `present` now, by name, and what of it differs after each of the `changes`."""
    known: dict[str, bytes] = {}
    is_first = True
    async for _ in changes.watch():
        now = {name: each.SerializeToString() for name, each in present().items()}
        events = [event(changed=each) for name, each in present().items() if known.get(name) != now[name]]
        events += [event(deleted=name) for name in known if name not in now]
        known = now
        if is_first:
            events.append(event(bookmark=watch_pb2.Bookmark()))
            is_first = False
        if events:
            await context.write(response(events=events))
