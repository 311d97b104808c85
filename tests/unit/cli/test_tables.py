"""What a table shows where there is little room."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from roundhouse.cli.deployments import deployment_table
from roundhouse.cli.nodes import node_table
from roundhouse.cli.replicas import replica_table
from roundhouse.cli.tables import Grid, table
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_pb2, node_pb2
from tests.support.terminal import Terminal
from tests.unit.cli.conftest import Cli

GIB = 1 << 30
STYLE = re.compile(r"\x1b\[[0-9;]*m")
NOW_S = 1_800_000_000.0

NODE = node_pb2.Node(
    name="nodes/gpu-server-7",
    state=node_pb2.NODE_STATE_READY,
    host=node_pb2.Host(
        cpu_count=64,
        cpu_fraction=0.5,
        total_memory_bytes=503 * GIB,
        available_memory_bytes=402 * GIB,
        placeable_memory_bytes=401 * GIB,
    ),
    gpus=[
        node_pb2.Gpu(
            index=index,
            product_name="NVIDIA H100 80GB HBM3",
            state=node_pb2.GPU_STATE_OK,
            total_memory_bytes=80 * GIB,
            used_memory_bytes=int(71.5 * GIB),
            reserved_memory_bytes=int(70.3 * GIB),
            available_memory_bytes=int(9.7 * GIB),
            utilization_fraction=1.0,
            foreign_memory_bytes=int(3.2 * GIB),
            memory_utilization_fraction=0.37,
            temperature_celsius=64,
            power_watts=699.6,
            replicas=[f"deployments/demo/replicas/{each}" for each in (0, 2, 4)],
        )
        for index in range(2)
    ],
)
REPLICAS = [
    deployment_pb2.Replica(
        name=f"deployments/assistant-de/replicas/{index}",
        state=deployment_pb2.REPLICA_STATE_STARTING,
        node="nodes/gpu-server-7",
        gpus=[deployment_pb2.ReplicaGpu(index=index)],
        reserved_memory_bytes=int(70.3 * GIB),
        engine_pid=1234567,
        restart_count=12,
        load=deployment_pb2.EngineLoad(
            running_count=128, waiting_count=17, free_block_count=12345, total_block_count=54321
        ),
        message="loading weights, 17 of 38 files are read",
    )
    for index in range(3)
]
DEPLOYMENT = deployment_pb2.Deployment(
    name="deployments/assistant-de",
    state=deployment_pb2.DEPLOYMENT_STATE_DEGRADED,
    ready_replica_count=12,
    replica_count=16,
    model=deployment_pb2.ModelSource(path="/models/vendor/a-model-of-many-words-70b-instruct"),
    engine="torch",
    placement=deployment_pb2.PlacementPolicy(gpu_count=14),
    create_time=to_timestamp(NOW_S - 187_200),
)
DEPLOYMENT.conditions.add(type="Available", message="4 of 16 replicas are not READY")

TABLES: dict[str, tuple[Callable[[], Grid], dict[str, str]]] = {
    "nodes": (
        lambda: node_table([NODE]),
        {
            "BUSY": "100 %",
            "MEM": "37 %",
            "USED": "71.5 GiB",
            "FOREIGN": "3.2 GiB",
            "RESERVED": "70.3 GiB",
            "AVAILABLE": "9.7 GiB",
            "TOTAL": "80 GiB",
            "TEMP": "64 °C",
            "POWER": "700 W",
        },
    ),
    "replicas": (
        lambda: replica_table(REPLICAS),
        {"MEMORY": "70.3 GiB", "PID": "1234567", "RESTARTS": "12", "BUSY": "128+17", "BLOCKS FREE": "12345/54321"},
    ),
    "list": (lambda: deployment_table([DEPLOYMENT], NOW_S), {"READY": "12/16", "GPUS": "14", "AGE": "2 d 4 h"}),
}


def drawn(grid: Grid, columns: int) -> list[str]:
    """Returns the lines that a terminal of so many columns shows."""
    out = io.StringIO()
    Console(file=out, width=columns, markup=False, emoji=False, highlight=False, color_system=None).print(grid)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("name", TABLES)
def test_a_number_is_shown_whole_or_its_column_is_not_there_however_narrow_it_gets(name: str) -> None:
    make, numbers = TABLES[name]
    for columns in range(30, 200):
        header, *lines = drawn(make(), columns)
        assert max(map(len, (header, *lines))) <= columns
        shown = {title: title in header for title in numbers}
        whole = {title: any(number in line for line in lines) for title, number in numbers.items()}
        assert whole == shown, (columns, header, lines)


@pytest.mark.parametrize("name", TABLES)
def test_the_first_and_the_last_column_stay_however_narrow_it_gets(name: str) -> None:
    wide = drawn(TABLES[name][0](), 400)[0].split("  ")
    for columns in range(40, 200):
        header = drawn(TABLES[name][0](), columns)[0]
        assert header.startswith(wide[0])
        assert header.endswith(wide[-1])


def test_on_eighty_columns_the_replicas_of_a_node_are_there_and_what_matters_less_is_not() -> None:
    header, *lines = drawn(node_table([NODE]), 80)
    assert header.split() == ["NODE", "STATE", "DEVICE", "BUSY", "AVAILABLE", "REPLICAS"]
    assert "demo-0 demo-2 demo-4" in lines[1]


def test_a_gpu_that_cannot_be_used_says_why() -> None:
    lost = node_pb2.Gpu(state=node_pb2.GPU_STATE_FAILED, state_reason=node_pb2.GPU_STATE_REASON_OFF_BUS)
    lines = drawn(node_table([node_pb2.Node(name="nodes/a", gpus=[lost])]), 200)
    assert "failed: off bus" in lines[2]


def test_what_a_host_can_still_take_is_what_is_called_available() -> None:
    assert "401 GiB" in drawn(node_table([NODE]), 200)[1]


def test_long_words_in_the_middle_end_with_an_ellipsis_and_the_last_column_is_folded() -> None:
    lines = drawn(deployment_table([DEPLOYMENT], NOW_S), 90)
    assert "  /models/vendor/a-…  " in lines[1]
    assert lines[1].endswith("4 of 16 replicas are not")
    assert lines[2].strip() == "READY"


def test_a_column_that_is_empty_in_every_row_is_left_out() -> None:
    grid = table(("A", "B", "C"), [("x", "", "1"), ("y", "", "2")], right=("C",), first_to_go=())
    assert drawn(grid, 80) == ["A  C", "x  1", "y  2"]


@pytest.mark.parametrize("columns", [120, 80, 60])
@pytest.mark.parametrize("command", ["nodes", "replicas", "list"])
def test_a_terminal_shows_no_line_beyond_its_width(cli: Cli, command: str, columns: int) -> None:
    with Terminal(cli.command(command), cli.environ(), columns=columns) as terminal:
        shown = STYLE.sub("", terminal.read_to_the_end()).splitlines()
        assert terminal.end() == 0
    assert max(map(len, shown)) <= columns
    assert shown[0].split()[0] in ("NODE", "REPLICA", "DEPLOYMENT")
    assert "…" not in "".join(shown)


def test_states_that_a_newer_server_knows_are_shown_by_their_numbers() -> None:
    newer: Any = 99
    node = node_pb2.Node(name="nodes/a", state=newer, gpus=[node_pb2.Gpu(state=newer)])
    replica = deployment_pb2.Replica(name="deployments/chat/replicas/0", state=newer)
    deployment = deployment_pb2.Deployment(name="deployments/chat", state=newer)
    for grid in (node_table([node]), replica_table([replica]), deployment_table([deployment], NOW_S)):
        out = io.StringIO()
        Console(file=out, width=120).print(grid)
        assert "99" in out.getvalue()
