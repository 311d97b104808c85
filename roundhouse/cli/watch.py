"""Shows a watch: a table that renews itself on a terminal, else a line per change."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from roundhouse.cli.output import console, print_json_line
from roundhouse.cli.tables import Grid
from roundhouse.client import Watch
from roundhouse.client.mirror import Mirror
from roundhouse.kit.errors import Unreachable

Item = TypeVar("Item")


async def show_watch(
    watch: Callable[[], Watch[Any]], draw: Callable[[Iterable[Item]], Grid], *, address: str, as_json: bool
) -> None:
    """Shows what `watch` sees until cancelled. A table survives a restart of the control plane; JSON ends with it.

    A reader of JSON could not tell what was deleted meanwhile. So Unreachable is raised, for it to begin anew.
    """
    if as_json:
        async with watch() as events:
            async for event in events:
                print_json_line(event)
        raise Unreachable(f"{address} ended the watch: begin it anew")
    out = console()
    board = _Board(draw, address)
    await (_show_live(watch, board, out) if out.is_terminal else _show_changes(watch, board, out))


class _Board:
    """What is shown, and since when it may be old."""

    def __init__(self, draw: Callable[[Iterable[Any]], Grid], address: str) -> None:
        self.mirror: Mirror[Any] = Mirror()
        self._draw = draw
        self._address = address
        self._lost_time_s = 0.0

    def lose(self) -> None:
        self._lost_time_s = time.time()

    def table(self) -> Grid:
        return self._draw(self.mirror.items.values())

    def warning(self) -> Text:
        """Returns nothing while all is fresh."""
        if self.mirror.is_whole or not self._lost_time_s:
            return Text()
        since = time.strftime("%H:%M:%S", time.localtime(self._lost_time_s))
        return Text(f"{self._address} does not answer since {since}; shown is what was last seen", style="yellow")


async def _show_changes(watch: Callable[[], Watch[Any]], board: _Board, out: Console) -> None:
    def lost() -> None:
        board.lose()
        console(sys.stderr).print(board.warning())

    await board.mirror.keep(watch, lambda: out.print(board.table()), lost)


async def _show_live(watch: Callable[[], Watch[Any]], board: _Board, out: Console) -> None:
    end = Text("Ctrl-C ends the watch", style="dim")

    def parts() -> list[Grid | Text]:
        return [each for each in (board.table(), board.warning()) if each]

    with Live(console=out, refresh_per_second=8, screen=True) as live:

        def show() -> None:
            live.update(Group(*parts(), Text(), end))

        def lost() -> None:
            board.lose()
            show()

        try:
            await board.mirror.keep(watch, show, lost)
        except asyncio.CancelledError:
            live.stop()
            if board.mirror.items:
                out.print(Group(*parts()))  # what was last seen stays on the terminal
            raise
