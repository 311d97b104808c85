"""`roundhouse events`: what happened, and what happens."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterable

import click
from rich.text import Text

from roundhouse.cli.output import console, print_json, print_json_line
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import format_age
from roundhouse.client import Client
from roundhouse.client.events import EVERYTHING
from roundhouse.client.names import deployment_id, replica_label
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import TooLong, Unreachable
from roundhouse.kit.times import from_timestamp
from roundhouse.v1.event_pb2 import EVENT_TYPE_NORMAL, Event

_RECONNECT = Backoff(first_s=0.2, cap_s=3.0, jitter=0.3)


@click.command(short_help="Shows what happened to deployments, replicas and nodes.")
@click.argument("name", default=EVERYTHING, metavar="[DEPLOYMENT]")
@click.option("--watch", "is_watch", is_flag=True, help="Go on with what happens, a line each, until Ctrl-C.")
@json_option
@click.pass_obj
@asynchronous
async def events(session: Session, name: str, is_watch: bool, as_json: bool) -> None:
    """Shows what happened to DEPLOYMENT and its replicas, to a node such as nodes/a, or to everything; newest last."""
    async with session.client() as client:
        if is_watch and as_json:
            async with client.events.watch(name) as watch:
                async for notice in watch:
                    print_json_line(notice)
            raise Unreachable(f"{session.address} ended the watch: begin it anew")
        if is_watch:
            await _follow(client, name)
        listing = await client.events.list(name)
    if as_json:
        print_json(listing)
    elif listing.events:
        newest_last = sorted(listing.events, key=lambda each: from_timestamp(each.last_time))
        console().print(event_table(newest_last, time.time()))
    else:
        console().print("nothing has happened", style="dim")


async def _follow(client: Client, name: str) -> None:
    """Shows events until cancelled, through restarts of the control plane, each as often as it happens."""
    cursor, failures, has_begun = "", 0, False
    while True:
        try:
            async with client.events.watch(name, cursor) as watch:
                async for notice in watch:
                    cursor, failures, has_begun = notice.cursor, 0, True
                    if notice.HasField("changed"):
                        _show(notice.changed)
        except TooLong as error:
            cursor = ""
            print(error.message, file=sys.stderr, flush=True)
        except Unreachable as error:
            if not has_begun:
                raise
            if not failures:
                print(error.message, file=sys.stderr, flush=True)
        await asyncio.sleep(_RECONNECT.delay_s(failures, random.random()))
        failures += 1


def _show(event: Event) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(from_timestamp(event.last_time)))
    again = f" ({event.count} times)" if event.count > 1 else ""
    line = Text.assemble(f"{at} {_label(event)} ", (event.reason, _style(event)), f": {event.message}{again}")
    console().print(line, soft_wrap=True)


def event_table(items: Iterable[Event], now_s: float) -> Grid:
    """Returns one line for each event; ages count back from `now_s`, seconds since 1970."""
    return table(
        ("LAST", "OBJECT", "REASON", "COUNT", "MESSAGE"),
        [
            (
                format_age(now_s - from_timestamp(each.last_time)),
                _label(each),
                Text(each.reason, style=_style(each)),
                str(each.count),
                each.message,
            )
            for each in items
        ],
        right=("LAST", "COUNT"),
        first_to_go=("COUNT",),
    )


def _label(event: Event) -> str:
    return deployment_id(replica_label(event.object))


def _style(event: Event) -> str:
    return "" if event.type == EVENT_TYPE_NORMAL else "yellow"
