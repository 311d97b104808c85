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
    """The objects that a watch shows, by name: what is there while `is_whole`, else what was last seen.

    Whole from the first bookmark of a connection until that breaks.
    """

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.is_whole = False
        self._coming: dict[str, Item] = {}  # of a connection that has not shown all yet

    async def keep(
        self, watch: Callable[[], Watch[Any]], changed: Callable[[], object], lost: Callable[[], object] = lambda: None
    ) -> NoReturn:
        """Follows a watch, calling `changed` whenever there is something new to see, and `lost` when it breaks off.

        Raises Unreachable only before it was first whole.
        """
        has_been_whole, failures = False, 0
        while True:
            self._coming = {}  # a connection begins with everything again
            try:
                async with watch() as events:
                    async for event in events:
                        self._take(event)
                        failures = 0
                        if self.is_whole:
                            has_been_whole = True
                            changed()
            except Unreachable:
                if not has_been_whole:
                    raise
            if self.is_whole:
                self.is_whole = False
                lost()
            await asyncio.sleep(_RECONNECT.delay_s(failures, random.random()))
            failures += 1

    def _take(self, event: Any) -> None:
        shown = self.items if self.is_whole else self._coming
        match event.WhichOneof("event"):
            case "changed":
                shown[event.changed.name] = event.changed
            case "deleted":
                shown.pop(event.deleted, None)
            case "bookmark":
                self.items, self.is_whole = shown, True
