"""Shows a watch: a table that renews itself on a terminal, else a line per change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from roundhouse.cli.output import console, print_json_line
from roundhouse.client import Watch
from roundhouse.client.mirror import Mirror

Item = TypeVar("Item")


async def show_watch(
    watch: Callable[[], Watch[Any]], draw: Callable[[Iterable[Item]], Table], *, as_json: bool
) -> None:
    """Shows what `watch` sees until cancelled. On a terminal it survives a restart of the control plane."""
    out = console()
    if as_json:
        async with watch() as events:
            async for event in events:
                print_json_line(event)
        return
    mirror: Mirror[Item] = Mirror()
    if not out.is_terminal:
        await mirror.keep(watch, lambda: out.print(draw(mirror.items.values())) if mirror.is_whole else None)
    with Live(console=out, refresh_per_second=8, screen=True) as live:
        try:
            await mirror.keep(watch, lambda: live.update(_screen(draw, mirror)) if mirror.is_whole else None)
        except asyncio.CancelledError:
            live.stop()
            out.print(draw(mirror.items.values()))  # what was last seen stays on the terminal
            raise


def _screen(draw: Callable[[Iterable[Item]], Table], mirror: Mirror[Item]) -> Group:
    return Group(draw(mirror.items.values()), Text("\nCtrl-C ends the watch", style="dim"))
