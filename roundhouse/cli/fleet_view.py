"""The whole fleet on one screen: its nodes, their GPUs with bars, and the replicas with what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from roundhouse.cli.bars import memory_bar, share_bar
from roundhouse.cli.nodes import node_state
from roundhouse.cli.output import short_enum, state_text
from roundhouse.cli.replicas import note, order, where
from roundhouse.cli.tables import Cell, Grid, table
from roundhouse.cli.units import count_of, format_share
from roundhouse.client.names import enum_name, node_id, replica_label
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import deployment_pb2, node_pb2

Row = Sequence[Cell]

_FRAME = 5  # lines that are no row: what all do together, two headers, and two empty ones
_CACHE_WIDTH = 6
_READY = deployment_pb2.REPLICA_STATE_READY


@dataclass(frozen=True)
class FleetView:
    """What there is at a moment. `rate` tells output tokens per second of a replica, if they are known."""

    nodes: Sequence[node_pb2.Node]
    replicas: Sequence[deployment_pb2.Replica]
    rate: Callable[[str], float | None]
    height: int | None = None  # lines that there is room for; any number if None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        devices = [row for node in sorted(self.nodes, key=lambda each: each.name) for row in _device_rows(node)]
        engines = [self._engine_row(each) for each in sorted(self.replicas, key=order)]
        room = None if self.height is None else max(2, self.height - _FRAME)
        device_room, engine_room = _shared(room, len(devices), len(engines))
        yield self._sum()
        yield Text()
        yield _device_table(_cut(devices, device_room))
        if engines:
            yield Text()
            yield _engine_table(_cut(engines, engine_room))

    def _sum(self) -> Text:
        gpus = [gpu for node in self.nodes for gpu in node.gpus]
        ready = sum(each.state == _READY for each in self.replicas)
        loads = [each.load for each in self.replicas if each.HasField("load")]
        rates = [rate for each in self.replicas if (rate := self.rate(each.name)) is not None]
        parts = [count_of(len(self.nodes), "node"), count_of(len(gpus), "GPU")]
        parts += [f"{ready} of {count_of(len(self.replicas), 'replica')} ready"]
        parts += [f"{sum(rates):.0f} tokens/s"] if rates else []
        parts += [f"{sum(each.running_count for each in loads)} running"]
        parts += [f"{sum(each.waiting_count for each in loads)} waiting"]
        return Text("  ".join(parts), style="bold")

    def _engine_row(self, replica: deployment_pb2.Replica) -> Row:
        load, rate = replica.load, self.rate(replica.name)
        is_told = replica.HasField("load")
        held = 1 - load.free_block_count / load.total_block_count if load.total_block_count else 0.0
        return (
            replica_label(replica.name),
            state_text(short_enum(enum_name(deployment_pb2.ReplicaState, replica.state))),
            where(replica),
            "" if rate is None else f"{rate:.0f}",
            str(load.running_count) if is_told else "",
            str(load.waiting_count) if is_told else "",
            _with_share(held, _CACHE_WIDTH) if is_told else "",
            format_share(load.busy_fraction) if is_told else "",
            note(replica),
        )


def _device_rows(node: node_pb2.Node) -> list[Row]:
    host = node.host
    on_gpus = {each for gpu in node.gpus for each in gpu.replicas}
    used_bytes = host.total_memory_bytes - host.available_memory_bytes
    ours_bytes = min(host.reserved_memory_bytes, host.total_memory_bytes)
    rows: list[Row] = [
        (
            node_id(node.name),
            node_state(node),
            count_of(host.cpu_count, "processor"),
            _with_share(host.cpu_fraction),
            _memory(ours_bytes, max(0, used_bytes - ours_bytes), host.total_memory_bytes),
            "",
            "",
            _labels(each for each in node.replicas if each not in on_gpus),
        )
    ]
    return rows + [_gpu_row(gpu) for gpu in node.gpus]


def _gpu_row(gpu: node_pb2.Gpu) -> Row:
    product = "simulated" if gpu.is_simulated else gpu.product_name.removeprefix("NVIDIA ")
    others_bytes = max(0, gpu.total_memory_bytes - gpu.available_memory_bytes - gpu.reserved_memory_bytes)
    return (
        f"  gpu {gpu.index}",
        state_text(short_enum(enum_name(node_pb2.GpuState, gpu.state))),
        product,
        _with_share(gpu.utilization_fraction) if gpu.HasField("utilization_fraction") else "",
        _memory(gpu.reserved_memory_bytes, others_bytes, gpu.total_memory_bytes),
        f"{gpu.temperature_celsius:.0f} °C" if gpu.HasField("temperature_celsius") else "",
        f"{gpu.power_watts:.0f} W" if gpu.HasField("power_watts") else "",
        gpu.state_message or _labels(gpu.replicas),
    )


def _device_table(rows: Sequence[Row]) -> Grid:
    return table(
        ("NODE", "STATE", "DEVICE", "UTILIZATION", "MEMORY", "TEMP", "POWER", "REPLICAS"),
        rows,
        right=("UTILIZATION", "MEMORY", "TEMP", "POWER"),
        first_to_go=("POWER", "TEMP", "STATE", "DEVICE"),
    )


def _engine_table(rows: Sequence[Row]) -> Grid:
    return table(
        ("REPLICA", "STATE", "WHERE", "TOKENS/S", "RUNNING", "WAITING", "CACHE", "BUSY", "NOTE"),
        rows,
        right=("TOKENS/S", "RUNNING", "WAITING", "CACHE", "BUSY"),
        first_to_go=("BUSY", "CACHE", "WHERE"),
    )


def _with_share(fraction: float, width: int | None = None) -> Text:
    bar = share_bar(fraction) if width is None else share_bar(fraction, width)
    return Text.assemble(f"{format_share(fraction)} ", bar)


def _memory(ours_bytes: int, others_bytes: int, total_bytes: int) -> Text:
    taken, total = format_bytes(ours_bytes + others_bytes), format_bytes(total_bytes)
    return Text.assemble(f"{taken} of {total} ", memory_bar(ours_bytes, others_bytes, total_bytes))


def _labels(names: Iterable[str]) -> str:
    return " ".join(sorted(replica_label(name) for name in names))


def _shared(room: int | None, devices: int, engines: int) -> tuple[int | None, int | None]:
    """Returns how many rows each of the two tables has: half of the room, and what the other one leaves."""
    if room is None or devices + engines <= room:
        return None, None
    least = room // 2
    for_engines = min(engines, max(least, room - devices))
    return room - for_engines, for_engines


def _cut(rows: Sequence[Row], room: int | None) -> Sequence[Row]:
    """Returns as many rows as there is room for, the last of which says how many are not shown."""
    if room is None or len(rows) <= room:
        return rows
    shown = max(0, room - 1)
    return [*rows[:shown], (f"… {len(rows) - shown} more", *("" for _ in rows[0][1:]))]
