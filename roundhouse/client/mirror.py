"""A local copy of what a watch shows, kept through broken connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

from roundhouse.client.stream import Watch
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import Unreachable

_RECONNECT = Backoff(first_s=0.2, cap_s=3.0, jitter=0.3)

Item = TypeVar("Item")


class Mirror(Generic[Item]):
    """The objects that a watch shows, by name. Whole from the first bookmark of a connection until that breaks."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.is_whole = False

    async def keep(self, watch: Callable[[], Watch[Any]], changed: Callable[[], object]) -> NoReturn:
        """Follows a watch, calling `changed` after every event. Raises Unreachable only before it was first whole."""
        has_been_whole, failures = False, 0
        while True:
            try:
                async with watch() as events:
                    async for event in events:
                        self._take(event)
                        has_been_whole, failures = has_been_whole or self.is_whole, 0
                        changed()
            except Unreachable:
                if not has_been_whole:
                    raise
            self.items, self.is_whole = {}, False  # the next connection begins with everything again
            await asyncio.sleep(_RECONNECT.delay_s(failures, random.random()))
            failures += 1

    def _take(self, event: Any) -> None:
        match event.WhichOneof("event"):
            case "changed":
                self.items[event.changed.name] = event.changed
            case "deleted":
                self.items.pop(event.deleted, None)
            case "bookmark":
                self.is_whole = True
