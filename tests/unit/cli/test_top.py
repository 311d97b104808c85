"""The fleet on one screen: once, as JSON, alive on a terminal, and in whatever room there is."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from roundhouse.cli.bars import memory_bar, share_bar
from roundhouse.cli.fleet_view import FleetView
from roundhouse.cli.rates import WINDOW_S, Rates
from roundhouse.v1 import deployment_pb2, node_pb2
from tests.support.terminal import Terminal
from tests.unit.cli.conftest import Cli

GIB = 1 << 30
FRAME_LINES = 5  # a sum, two headers, two empty ones
READY = deployment_pb2.REPLICA_STATE_READY


def gpu(index: int, **fields: Any) -> node_pb2.Gpu:
    facts: dict[str, Any] = {
        "total_memory_bytes": 80 * GIB,
        "reserved_memory_bytes": 20 * GIB,
        "available_memory_bytes": 40 * GIB,
        "utilization_fraction": 0.5,
        "state": node_pb2.GPU_STATE_OK,
        "product_name": "NVIDIA H200",
        **fields,
    }
    return node_pb2.Gpu(index=index, uuid=f"GPU-{index}", **facts)


def node(name: str, *gpus: node_pb2.Gpu) -> node_pb2.Node:
    host = node_pb2.Host(cpu_count=8, cpu_fraction=0.25, total_memory_bytes=64 * GIB, available_memory_bytes=32 * GIB)
    return node_pb2.Node(name=f"nodes/{name}", state=node_pb2.NODE_STATE_READY, gpus=gpus, host=host)


def replica(index: int, written: int = 0, *, engine: str = "e", **load: int) -> deployment_pb2.Replica:
    counts: dict[str, Any] = {
        "free_block_count": 25,
        "total_block_count": 100,
        "running_count": 3,
        "waiting_count": 2,
        **load,
    }
    return deployment_pb2.Replica(
        name=f"deployments/chat/replicas/{index}",
        state=READY,
        node="nodes/one",
        engine_uuid=engine,
        load=deployment_pb2.EngineLoad(output_token_count=written, **counts),
        message="serving",
    )


def shown(view: FleetView, width: int = 120) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(view)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def words(line: str) -> str:
    return " ".join(line.split())


def test_a_screen_tells_of_nodes_gpus_and_replicas() -> None:
    gpus = gpu(0, replicas=["deployments/chat/replicas/0"], temperature_celsius=61.0, power_watts=420.0), gpu(1)
    first, _, header, host, one, _, _, engines, only = shown(
        FleetView([node("one", *gpus)], [replica(0)], lambda _: 41.6)
    )
    assert first.split("  ") == ["1 node", "2 GPUs", "1 of 1 replica ready", "42 tokens/s", "3 running", "2 waiting"]
    assert words(header) == "NODE STATE DEVICE UTILIZATION MEMORY TEMP POWER REPLICAS"
    assert words(host) == "one ready 8 processors 25 % ███░░░░░░░░░ 32 GiB of 64 GiB ▓▓▓▓▓▓░░░░░░"
    assert words(one) == "gpu 0 ok H200 50 % ██████░░░░░░ 40 GiB of 80 GiB ███▓▓▓░░░░░░ 61 °C 420 W chat-0"
    assert words(engines) == "REPLICA STATE WHERE TOKENS/S RUNNING WAITING CACHE BUSY"
    assert words(only) == "chat-0 ready one cpu 42 3 2 75 % ████░░ 0 %"


def test_a_gpu_that_cannot_be_used_says_why() -> None:
    broken = gpu(0, state=node_pb2.GPU_STATE_FAILED, state_message="GPU is lost")
    broken.ClearField("utilization_fraction")
    [line] = [each for each in shown(FleetView([node("one", broken)], [], lambda _: None)) if "gpu 0" in each]
    assert words(line).startswith("gpu 0 failed H200")
    assert line.endswith("GPU is lost")


@pytest.mark.parametrize("height", [9, 12, 20, 60])
def test_a_large_fleet_takes_the_lines_that_there_are(height: int) -> None:
    nodes = [node(f"n{number:03}", *(gpu(index) for index in range(8))) for number in range(50)]
    view = FleetView(nodes, [replica(index) for index in range(30)], lambda _: None, height)
    lines = shown(view, 100)
    assert len(lines) == height
    hidden = sum(int(line.split()[1]) for line in lines if line.startswith("…"))
    assert hidden + height - FRAME_LINES - sum(line.startswith("…") for line in lines) == 50 * 9 + 30
    assert any(line.startswith("n000") for line in lines)
    assert any(line.startswith("chat-0") for line in lines)


def test_a_narrow_terminal_keeps_the_bars() -> None:
    for line in shown(FleetView([node("one", gpu(0))], [replica(0)], lambda _: None), 64):
        assert len(line) <= 64
        assert "…" not in line


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rates = Rates()
    name = replica(0).name
    rates.note(replica(0, 1000), 0.0)
    assert rates.of(name) is None
    for second in range(1, 20):
        rates.note(replica(0, 1000 + 50 * second), float(second))
    assert rates.of(name) == pytest.approx(50)
    for second in range(20, 20 + int(WINDOW_S) + 1):
        rates.note(replica(0, 1950), float(second))
    assert rates.of(name) == 0


def test_a_new_engine_begins_a_new_rate() -> None:
    rates, name = Rates(), replica(0).name
    rates.note(replica(0, 5000), 0.0)
    rates.note(replica(0, 7, engine="another"), 1.0)
    assert rates.of(name) is None
    rates.note(replica(0, 17, engine="another"), 2.0)
    assert rates.of(name) == pytest.approx(10)
    rates.keep([])
    assert rates.of(name) is None


def test_an_engine_that_does_not_answer_has_no_rate() -> None:
    rates = Rates()
    rates.note(replica(0, 1), 0.0)
    rates.note(replica(0, 2), 1.0)
    rates.note(deployment_pb2.Replica(name=replica(0).name), 2.0)
    assert rates.of(replica(0).name) is None


@pytest.mark.parametrize(
    ("bar", "text"),
    [
        (share_bar(0), "░░░░░░░░░░░░"),
        (share_bar(0.001), "█░░░░░░░░░░░"),
        (share_bar(1.7), "████████████"),
        (memory_bar(GIB, GIB, 2 * GIB), "██████▓▓▓▓▓▓"),
        (memory_bar(1, 1, 80 * GIB), "█▓░░░░░░░░░░"),
        (memory_bar(2 * GIB, GIB, 2 * GIB), "████████████"),
        (memory_bar(0, 0, 0), "░░░░░░░░░░░░"),
    ],
    ids=["nothing", "a trace", "too much", "two halves", "two traces", "more than there is", "no memory"],
)
def test_a_bar_is_as_long_as_its_share(bar: object, text: str) -> None:
    assert str(bar) == text


def test_into_a_pipe_goes_one_picture(cli: Cli) -> None:
    ended = cli("top")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[0].startswith("1 node  2 GPUs  3 of ")
    assert "\x1b" not in ended.out
    assert [line.split()[0] for line in ended.out.splitlines() if line.startswith("demo-")] == [
        "demo-0", "demo-1", "demo-2"
    ]  # fmt: skip


def test_as_json_it_is_one_document(cli: Cli) -> None:
    ended = cli("top", "--json")
    assert (ended.status, ended.err) == (0, "")
    both = json.loads(ended.out)
    assert [each["name"] for each in both["nodes"]] == ["nodes/one"]
    assert len(both["replicas"]) == 3


def test_on_a_terminal_it_goes_on_until_q(cli: Cli) -> None:
    with Terminal(cli.command("top"), cli.environ(LINES="30")) as terminal:
        terminal.read_until("2 GPUs")
        assert "demo-2" in terminal.read_until("q or Ctrl-C ends it")
        terminal.write("q")
        assert "demo-2" in terminal.read_to_the_end(), "what was last seen stays"
        assert terminal.end() == 0


def test_ctrl_c_ends_it_too(cli: Cli) -> None:
    with Terminal(cli.command("top"), cli.environ(LINES="30")) as terminal:
        terminal.read_until("q or Ctrl-C ends it")
        terminal.interrupt()
        assert "Traceback" not in terminal.read_to_the_end()
        assert terminal.end() == 130


def test_without_anybody_who_answers_it_ends(cli: Cli) -> None:
    with Terminal(cli.command("--address", "127.0.0.1:1", "top"), cli.environ()) as terminal:
        assert "does not answer" in terminal.read_to_the_end()
        assert terminal.end() == 3
