"""`roundhouse cordon`, `drain` and `uncordon`: nodes are taken out of use, and into it again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import click
from rich.console import Console

from roundhouse.cli.output import console, print_json
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.cli.values import seconds
from roundhouse.client.draining import drain_progress
from roundhouse.client.names import node_id, replica_label
from roundhouse.v1 import node_pb2


@click.command(short_help="Lets no new replicas onto a node.")
@click.argument("node")
@json_option
@click.pass_obj
@asynchronous
async def cordon(session: Session, node: str, as_json: bool) -> None:
    """Lets no new replicas onto NODE until it is uncordoned; those that are there stay."""
    async with session.client() as client:
        shown = await client.nodes.cordon(node)
    if as_json:
        print_json(shown)
    else:
        kept = f" and keeps {count_of(len(shown.replicas), 'replica')}" if shown.replicas else ""
        console().print(f"{node_id(shown.name)} takes no new replicas{kept}")


@click.command(short_help="Takes a node into use again.")
@click.argument("node")
@json_option
@click.pass_obj
@asynchronous
async def uncordon(session: Session, node: str, as_json: bool) -> None:
    """Takes NODE into use again: replicas may be placed on it, and no more are moved off it."""
    async with session.client() as client:
        shown = await client.nodes.uncordon(node)
    if as_json:
        print_json(shown)
    else:
        console().print(f"{node_id(shown.name)} takes replicas again")


@click.command(short_help="Moves the replicas of a node to others and waits until it is empty.")
@click.argument("node")
@click.option(
    "--grace", "grace_s", metavar="SECONDS", type=seconds, default=30.0, show_default=True,
    help="How long running requests may go on once their replica has been replaced.",
)  # fmt: skip
@click.option("--allow-unserved", is_flag=True, help="Stop also what has no room elsewhere.")
@click.option("--no-wait", is_flag=True, help="Return when the drain has begun.")
@click.option("--timeout", "timeout_s", metavar="SECONDS", type=seconds, default=600.0, show_default=True)
@json_option
@click.pass_obj
@asynchronous
async def drain(
    session: Session, node: str, grace_s: float, allow_unserved: bool, no_wait: bool, timeout_s: float, as_json: bool
) -> None:
    """Moves the replicas of NODE to other nodes, without loss of service, and waits until it is empty.

    Each is started elsewhere first, and stopped here once it is ready there; what has no room elsewhere stays. It holds
    until the node is uncordoned, whatever this command is waiting for.
    """
    start_s = time.monotonic()
    async with session.client() as client:
        shown = await client.nodes.drain(node, drain_grace_s=grace_s, allow_unserved=allow_unserved)
        if not no_wait:
            told = _Told(console(sys.stderr), is_quiet=as_json)
            shown = await client.nodes.wait_drained(node, timeout_s, told.take)
    if as_json:
        print_json(shown)
        return
    took = format_seconds(time.monotonic() - start_s)
    console().print(f"{node_id(shown.name)} {'is being drained' if no_wait else f'is empty after {took}'}")


class _Told:
    """One line whenever something else is left, or keeps it there."""

    def __init__(self, out: Console, *, is_quiet: bool) -> None:
        self._out, self._is_quiet, self._last = out, is_quiet, ""

    def take(self, node: node_pb2.Node) -> None:
        """Prints what is left of a node, if that is news."""
        line = f"{_labels(node.replicas)}: {drain_progress(node)}" if node.replicas else ""
        if line and line != self._last and not self._is_quiet:
            self._out.print(line)
        self._last = line


def _labels(names: Iterable[str]) -> str:
    return " ".join(sorted(replica_label(name) for name in names))
