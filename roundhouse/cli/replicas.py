"""`roundhouse replicas`: where each replica is and what it does."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.text import Text

from roundhouse.cli.bars import progress_bar
from roundhouse.cli.output import console, print_json, short_enum, state_text
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import format_share
from roundhouse.cli.watch import show_watch
from roundhouse.client.names import enum_name, node_id, replica_label
from roundhouse.client.replicas import ALL
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import deployment_pb2

_SERVES = "serving"  # what an engine has to say while all is well


@click.command(short_help="Shows the replicas, where they are and what they do.")
@click.argument("name", default=ALL, metavar="[NAME]")
@click.option("--watch", "is_watch", is_flag=True, help="Go on showing changes until Ctrl-C.")
@json_option
@click.pass_obj
@asynchronous
async def replicas(session: Session, name: str, is_watch: bool, as_json: bool) -> None:
    """Shows the replicas of deployment NAME, or of all: state, node, GPUs, memory, engine and load."""
    async with session.client() as client:
        if is_watch:
            await show_watch(
                lambda: client.replicas.watch(name), replica_table, address=session.address, as_json=as_json
            )
            return
        listing = await client.replicas.list(name)
    if as_json:
        print_json(listing)
        return
    out = console()
    if listing.replicas:
        out.print(replica_table(listing.replicas))
    else:
        out.print("no replicas", style="dim")
    for node in listing.unreachable:
        out.print(f"{node} does not report: what is shown of it is old", style="yellow")


def replica_table(items: Iterable[deployment_pb2.Replica]) -> Grid:
    """Returns one line for each replica."""
    return table(
        ("REPLICA", "STATE", "NODE", "GPU", "MEMORY", "PID", "RESTARTS", "BUSY", "BLOCKS FREE", "DONE", "NOTE"),
        [
            (
                replica_label(each.name),
                state_text(short_enum(enum_name(deployment_pb2.ReplicaState, each.state))),
                node_id(each.node),
                _gpus(each) or ("cpu" if each.node else ""),
                format_bytes(each.reserved_memory_bytes) if each.node else "",
                str(each.engine_pid or ""),
                str(each.restart_count or ""),
                _busy(each),
                f"{each.load.free_block_count}/{each.load.total_block_count}" if each.HasField("load") else "",
                done(each),
                note(each),
            )
            for each in sorted(items, key=order)
        ],
        right=("GPU", "MEMORY", "PID", "RESTARTS", "BUSY", "BLOCKS FREE", "DONE"),
        first_to_go=("PID", "MEMORY", "BLOCKS FREE", "BUSY", "RESTARTS"),
    )


def where(replica: deployment_pb2.Replica) -> str:
    """Returns where a replica is, for example `node-1 gpu 0`; empty if it has no place."""
    if not replica.node:
        return ""
    gpus = f"gpu {_gpus(replica)}" if replica.gpus else "cpu"
    return f"{replica.node.removeprefix('nodes/')} {gpus}"


def note(replica: deployment_pb2.Replica) -> str:
    """Returns what there is to say beyond the state: of one that is READY, what is more than that it serves."""
    is_ready = replica.state == deployment_pb2.REPLICA_STATE_READY
    if is_ready and replica.message == _SERVES:
        return ""
    progress = replica.progress
    if not progress.HasField("total_bytes"):
        return replica.message
    return f"{replica.message}: {format_bytes(progress.done_bytes)} of {format_bytes(progress.total_bytes)}"


def done(replica: deployment_pb2.Replica) -> Text:
    """Returns how much of its stage a replica on its way has done, as a share and a bar; empty if that is not known."""
    if not replica.progress.HasField("fraction"):
        return Text()
    fraction = replica.progress.fraction
    return Text.assemble(f"{format_share(fraction)} ", progress_bar(fraction))


def _gpus(replica: deployment_pb2.Replica) -> str:
    """Returns the GPUs by their indexes; by UUID as long as the node does not tell the index."""
    return ",".join(str(each.index) if each.HasField("index") else each.uuid for each in replica.gpus)


def _busy(replica: deployment_pb2.Replica) -> str:
    if not replica.HasField("load"):
        return ""
    waiting = f"+{replica.load.waiting_count}" if replica.load.waiting_count else ""
    return f"{replica.load.running_count}{waiting}"


def order(replica: deployment_pb2.Replica) -> tuple[str, int]:
    """Returns what sorts replicas by deployment and index."""
    deployment, _, index = replica.name.rpartition("/replicas/")
    return deployment, int(index) if index.isdecimal() else 0
