"""`roundhouse top`: what the whole fleet does, alive on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from roundhouse.cli.fleet_view import FleetView
from roundhouse.cli.output import console, to_dict
from roundhouse.cli.rates import Rates
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.client import Client
from roundhouse.client.mirror import Mirror
from roundhouse.v1 import deployment_pb2, node_pb2

_PERIOD_S = 0.5  # nodes report every second, and each at its own moment
_BELOW = 2  # lines below the tables
_END = "q or Ctrl-C ends it   █ reserved by replicas  ▓ used by others  ░ free"
_KEYS = ("q", "Q")


@click.command(short_help="Shows what the whole fleet does, alive.")
@click.option("--once", is_flag=True, help="Show it once and end, as into a pipe.")
@json_option
@click.pass_obj
@asynchronous
async def top(session: Session, once: bool, as_json: bool) -> None:
    """Shows nodes, GPUs with utilization and memory, and replicas with tokens per second and queues.

    On a terminal it goes on until q or Ctrl-C; rates are those of the last five seconds.
    """
    async with session.client() as client:
        if as_json or once or not console().is_terminal:
            await _show_once(client, as_json=as_json)
        else:
            await _show_live(client, session.address)


async def _show_once(client: Client, *, as_json: bool) -> None:
    nodes, replicas = await client.nodes.list(), await client.replicas.list()
    if as_json:
        both = {"nodes": to_dict(nodes)["nodes"], "replicas": to_dict(replicas)["replicas"]}
        print(json.dumps(both, indent=2, ensure_ascii=False), flush=True)
    else:
        console().print(FleetView(nodes.nodes, replicas.replicas, lambda _: None))


class _Board:
    """What was last seen of the fleet, and how it looks."""

    def __init__(self, address: str) -> None:
        self.nodes: Mirror[node_pb2.Node] = Mirror()
        self.replicas: Mirror[deployment_pb2.Replica] = Mirror()
        self.rates = Rates()
        self.height: int | None = None
        self._address = address
        self._lost_time_s = 0.0

    def lose(self) -> None:
        self._lost_time_s = time.time()

    def count(self) -> None:
        """Notes what every replica has written, also of one that has been silent since."""
        for each in self.replicas.items.values():
            self.rates.note(each, time.monotonic())
        self.rates.keep(self.replicas.items)

    def view(self) -> FleetView:
        nodes, replicas = self.nodes.items.values(), self.replicas.items.values()
        return FleetView(list(nodes), list(replicas), self.rates.of, self.height)

    def __rich__(self) -> Group:
        is_fresh = (self.nodes.is_whole and self.replicas.is_whole) or not self._lost_time_s
        since = time.strftime("%H:%M:%S", time.localtime(self._lost_time_s))
        lost = f"{self._address} does not answer since {since}; shown is what was last seen"
        return Group(self.view(), Text(), Text(_END, style="dim") if is_fresh else Text(lost, style="yellow"))


async def _show_live(client: Client, address: str) -> None:
    board, out, ended = _Board(address), console(), asyncio.Event()
    with Live(board, console=out, refresh_per_second=4, screen=True) as live, _keys(ended.set):

        async def draw() -> None:
            while True:
                board.height = out.height - _BELOW
                board.count()
                await asyncio.sleep(_PERIOD_S)

        try:
            await _first(
                ended.wait(),
                draw(),
                board.nodes.keep(client.nodes.watch, lambda: None, board.lose),
                board.replicas.keep(client.replicas.watch, lambda: None, board.lose),
            )
        finally:
            live.stop()
            board.height = None
            if board.nodes.items:
                out.print(board.view())  # what was last seen stays on the terminal


async def _first(*endings: Any) -> None:
    """Waits for the first to end, and ends the others; raises what it raised."""
    tasks = [asyncio.create_task(each, name=f"top {index}") for index, each in enumerate(endings)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _keys(end: Callable[[], object]) -> Iterator[None]:
    """Calls `end` at a key that means it, as long as the block runs; without a keyboard, nothing."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(keyboard)

    def read() -> None:
        if any(each in _KEYS for each in os.read(keyboard, 64).decode(errors="replace")):
            end()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
