"""`roundhouse logs`: what engines write, wherever they run."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import click

from roundhouse.cli.output import to_dict
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.values import ago, int32
from roundhouse.client import Client, Watch
from roundhouse.client.names import replica_label, replica_name
from roundhouse.kit.errors import NotFound, RoundhouseError
from roundhouse.kit.units import format_bytes
from roundhouse.v1.log_pb2 import LogLine

# What a terminal would obey instead of show. A tab is none of it.
_OBEYED = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_LABEL = re.compile(r".+-\d+\Z")


@click.command("logs", short_help="Shows what engines write.")
@click.argument("name", metavar="DEPLOYMENT[-INDEX]")
@click.option(
    "--tail", "tail", metavar="N", type=int32, help="Begin with the newest N lines; all that are kept if not given."
)
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with new lines, through restarts of the engine, until Ctrl-C."
)
@click.option(
    "--since", "since_s", metavar="TIME", type=ago, help="Nothing older than this, such as 90s, 5m, 2h or 1d."
)
@click.option("--previous", is_flag=True, help="The life of the engine before the present one.")
@click.option("--stdout", "stream", flag_value="stdout", help="Its output stream alone.")
@click.option("--stderr", "stream", flag_value="stderr", help="Its error stream alone; engines log there.")
@json_option
@click.pass_obj
@asynchronous
async def logs(
    session: Session,
    name: str,
    tail: int | None,
    follow: bool,
    since_s: float | None,
    previous: bool,
    stream: Literal["stdout", "stderr"] | None,
    as_json: bool,
) -> None:
    """Shows what the engines of DEPLOYMENT write, or the engine of one replica, such as chat-0.

    Lines of several replicas begin with the name of theirs.
    """
    async with session.client() as client:
        replicas = await _replicas(client, name)
        since_time_s = None if since_s is None else time.time() - since_s

        def watch(replica: str) -> Watch[LogLine]:
            return client.replicas.logs(
                replica,
                tail_line_count=tail,
                follow=follow,
                since_s=since_time_s,
                previous_life=previous,
                stream=stream or "both",
            )

        await _show_all(replicas, watch, at_once=follow, as_json=as_json)


async def _replicas(client: Client, name: str) -> Sequence[str]:
    """Returns the names of the replicas that are meant: `chat-0` may be a deployment, too."""
    if "/replicas/" in name:
        return [name]
    try:
        listing = await client.replicas.list(name)
    except NotFound:
        if not _LABEL.match(name):
            raise
        return [replica_name(name)]
    if not listing.replicas:
        raise NotFound(f"{name} has no replicas: scale it up")
    return [each.name for each in listing.replicas]


async def _show_all(
    replicas: Sequence[str], watch: Callable[[str], Watch[LogLine]], *, at_once: bool, as_json: bool
) -> None:
    """Shows the logs of all; raises only if none of them can be shown."""
    if len(replicas) == 1:
        await _show(watch(replicas[0]), partial(_print, replicas[0], prefix="", as_json=as_json))
        return
    errors: list[RoundhouseError] = []

    async def show(replica: str) -> None:
        try:
            prefix = f"{replica_label(replica)} | "
            await _show(watch(replica), partial(_print, replica, prefix=prefix, as_json=as_json))
        except RoundhouseError as error:
            errors.append(error)
            print(error.message, file=sys.stderr, flush=True)

    if at_once:
        await asyncio.gather(*map(show, replicas))
    else:
        for each in replicas:
            await show(each)
    if len(errors) == len(replicas):
        raise errors[0]


async def _show(lines: Watch[LogLine], show: Callable[[LogLine], None]) -> None:
    async with lines:
        async for line in lines:
            show(line)


def _print(replica: str, line: LogLine, *, prefix: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"replica": replica, **to_dict(line)}, ensure_ascii=False), flush=True)
        return
    if line.skipped_byte_count:
        gone = format_bytes(line.skipped_byte_count)
        print(f"{prefix}({gone} were rotated away before they could be shown)", file=sys.stderr, flush=True)
    print(prefix + (_OBEYED.sub("\ufffd", line.text) if sys.stdout.isatty() else line.text), flush=True)
