"""`roundhouse nodes`: the machines, their GPUs, and what those are doing."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.text import Text

from roundhouse.cli.output import console, print_json, short_enum, state_text
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import format_share
from roundhouse.cli.watch import show_watch
from roundhouse.client.names import enum_name, node_id, replica_label
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import node_pb2

_BYTES = ("USED", "FOREIGN", "RESERVED", "AVAILABLE", "TOTAL")


@click.command(short_help="Shows the nodes, their GPUs and what those do.")
@click.option("--watch", "is_watch", is_flag=True, help="Go on showing changes until Ctrl-C.")
@json_option
@click.pass_obj
@asynchronous
async def nodes(session: Session, is_watch: bool, as_json: bool) -> None:
    """Shows the nodes: a line for each GPU, with use, memory and the replicas on it, and one for the host."""
    async with session.client() as client:
        if is_watch:
            await show_watch(client.nodes.watch, node_table, address=session.address, as_json=as_json)
            return
        listing = await client.nodes.list()
    if as_json:
        print_json(listing)
    elif listing.nodes:
        console().print(node_table(listing.nodes))
    else:
        console().print("no node has connected: start an agent on each machine", style="dim")


def node_table(items: Iterable[node_pb2.Node]) -> Grid:
    """Returns one line for the host of each node and one for each of its GPUs."""
    return table(
        ("NODE", "STATE", "DEVICE", "BUSY", "MEM", *_BYTES, "TEMP", "POWER", "REPLICAS"),
        [row for node in sorted(items, key=lambda each: each.name) for row in (_host_row(node), *_gpu_rows(node))],
        right=("BUSY", "MEM", *_BYTES, "TEMP", "POWER"),
        first_to_go=("POWER", "TEMP", "MEM", "FOREIGN", "USED", "RESERVED", "TOTAL", "AVAILABLE", "BUSY"),
    )


def _host_row(node: node_pb2.Node) -> tuple[str | Text, ...]:
    host = node.host
    on_gpus = {name for gpu in node.gpus for name in gpu.replicas}
    return (
        node_id(node.name),
        node_state(node),
        f"host, {host.cpu_count} cpu",
        format_share(host.cpu_fraction),
        "",
        format_bytes(host.total_memory_bytes - host.available_memory_bytes),
        format_bytes(host.foreign_memory_bytes),
        format_bytes(host.reserved_memory_bytes),
        format_bytes(host.placeable_memory_bytes),
        format_bytes(host.total_memory_bytes),
        "",
        "",
        _labels(name for name in node.replicas if name not in on_gpus),
    )


def node_state(node: node_pb2.Node) -> Text:
    """Returns the state of a node, and whether it is out of use."""
    text = state_text(short_enum(enum_name(node_pb2.NodeState, node.state)))
    if node.is_cordoned:
        left = bool(node.replicas)
        text.append(", cordoned" if not node.HasField("drain") else ", draining" if left else ", drained")
    return text


def _gpu_rows(node: node_pb2.Node) -> list[tuple[str | Text, ...]]:
    return [
        (
            "",
            _gpu_state(gpu),
            f"gpu {gpu.index}, {'simulated' if gpu.is_simulated else gpu.product_name.removeprefix('NVIDIA ')}",
            format_share(gpu.utilization_fraction) if gpu.HasField("utilization_fraction") else "",
            format_share(gpu.memory_utilization_fraction) if gpu.HasField("memory_utilization_fraction") else "",
            format_bytes(gpu.used_memory_bytes),
            format_bytes(gpu.foreign_memory_bytes),
            format_bytes(gpu.reserved_memory_bytes),
            format_bytes(gpu.available_memory_bytes),
            format_bytes(gpu.total_memory_bytes),
            f"{gpu.temperature_celsius:.0f} °C" if gpu.HasField("temperature_celsius") else "",
            f"{gpu.power_watts:.0f} W" if gpu.HasField("power_watts") else "",
            _labels(gpu.replicas),
        )
        for gpu in node.gpus
    ]


def _gpu_state(gpu: node_pb2.Gpu) -> Text:
    """Returns the state of a GPU, with the reason if it cannot be used."""
    text = state_text(short_enum(enum_name(node_pb2.GpuState, gpu.state)))
    if gpu.state_reason:
        reason = enum_name(node_pb2.GpuStateReason, gpu.state_reason).removeprefix("GPU_STATE_REASON_")
        text.append(f": {reason.lower().replace('_', ' ')}")
    return text


def _labels(names: Iterable[str]) -> str:
    return " ".join(sorted(replica_label(name) for name in names))
