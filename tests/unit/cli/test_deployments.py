"""Launching, listing, scaling and terminating, as a person and as a script see it."""

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from tests.support.terminal import Terminal
from tests.unit.cli.conftest import Cli

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def test_a_launch_shows_the_stages_and_ends_with_the_placement(cli: Cli) -> None:
    ended = cli("launch", "--model-name", "demo", "--model-uid", "talk", "--replica", "3", "--gpu-count", "2")
    assert ended.status == 0, ended.err
    stages = [line.split()[2:4] for line in ended.err.splitlines()]
    assert [state for name, state in stages if name == "talk-1"] == ["pending", "preparing", "starting", "ready"]
    header, *rows, last = ended.out.splitlines()
    assert header.split() == ["REPLICA", "STATE", "NODE", "GPU", "MEMORY", "PID"]
    assert [row.split()[:4] for row in rows] == [
        ["talk-0", "ready", "one", "0"],
        ["talk-1", "ready", "one", "1"],
        ["talk-2", "ready", "one", "0"],
    ]
    assert last.startswith("talk is ready with 3 replicas after ")


def test_every_flag_of_a_launch_reaches_the_deployment(cli: Cli) -> None:
    ended = cli(
        "launch", "flags", "-mp", "models/qwen", "-r", "2", "--gpu-count", "2", "-en", "torch",
        "-ev", "A", "1", "-ev", "B", "x y", "--memory", "5GiB", "--strategy", "idle_first", "--batch-size", "8",
        "--batch-interval", "0.25", "--max_model_len", "1024", "--kv-cache-memory", "64MiB", "--enable-thinking",
        "--gpus-per-replica", "2", "--allow-gpu", "one:0,1", "--allow-gpu", "*:GPU-7", "--no-allow-shared-gpu",
        "--node-label", "zone=a", "--tolerate", "spot", "--tolerate", "team=search", "--apart", "node",
        "--apart", "gpu:tier=1,team=x", "--swap_space", "4", "--enforce-eager",
        "--label", "team=search", "--routing-policy", "round_robin", "--allow-pending", "--no-wait", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    stored = json.loads(ended.out)
    assert stored["name"] == "deployments/flags"
    assert stored["model"]["path"].startswith("/")
    assert stored["model"]["path"].endswith("/models/qwen")
    assert (stored["engine"], stored["replica_count"], stored["labels"]) == ("torch", 2, {"team": "search"})
    assert stored["routing_policy"] == "round_robin"
    assert stored["placement"] == {
        "strategy": "idle_first",
        "gpu_count": 2,
        "memory_bytes": str(5 << 30),
        "allow_shared_gpu": False,
        "gpus_per_replica": 2,
        "allowed_gpus": [
            {"node": "nodes/one", "indexes": [0, 1], "uuids": []},
            {"node": "nodes/-", "indexes": [], "uuids": ["GPU-7"]},
        ],
        "node_labels": {"zone": "a"},
        "tolerations": [{"key": "spot"}, {"key": "team", "value": "search"}],
        "anti_affinity": [
            {"deployment_labels": {}, "scope": "ANTI_AFFINITY_SCOPE_NODE"},
            {"deployment_labels": {"tier": "1", "team": "x"}, "scope": "ANTI_AFFINITY_SCOPE_GPU"},
        ],
    }
    assert stored["env"] == [
        {"name": "A", "value": "1", "secret_version": "0"},
        {"name": "B", "value": "x y", "secret_version": "0"},
    ]
    options = stored["engine_options"]
    assert (options["batch_size"], options["batch_interval"], options["max_model_len"]) == (8, "0.250s", 1024)
    assert (options["kv_cache_memory_bytes"], options["enable_thinking"]) == (str(64 << 20), True)
    assert options["arguments"] == [{"name": "swap_space", "value": "4"}, {"name": "enforce_eager", "value": ""}]


def test_a_launch_as_json_is_one_document_and_says_nothing_else(cli: Cli) -> None:
    ended = cli("launch", "quiet", "-n", "demo", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out)["state"] == "DEPLOYMENT_STATE_READY"


def test_a_launch_whose_engine_dies_again_and_again_tells_how(cli: Cli) -> None:
    ended = cli("launch", "bad", "-n", "demo", "--label", "script=crash")
    assert (ended.status, ended.out) == (1, "")
    assert 'roundhouse: replica "bad-0" dies before it is ready; last it ended with exit code 3' in ended.err
    assert "it stays: `roundhouse terminate bad` ends it" in ended.err.splitlines()[-3]
    assert ended.err.splitlines()[-2:] == ["  loading", "  model.safetensors is cut off"]
    assert cli("replicas", "bad").status == 0


def test_a_launch_that_takes_too_long_tells_what_is_missing(cli: Cli) -> None:
    ended = cli("launch", "slow", "-n", "demo", "--label", "script=stuck", "--timeout", "0.3")
    assert ended.status == 1
    assert "not ready after 0.3 s: 0 of 1 replicas are READY" in ended.err
    assert "loading weights: 1 GiB of 4 GiB" in ended.err
    assert ended.err.endswith("; it stays: `roundhouse terminate slow` ends it\n")


def test_a_launch_at_a_terminal_shows_how_far_it_is(cli: Cli) -> None:
    with Terminal(cli.command("launch", "far", "-n", "demo", "--label", "script=stuck"), cli.environ()) as terminal:
        line = STYLE.sub("", terminal.read_until("1 GiB of 4 GiB").splitlines()[-1])
        assert "25 % ███░░░░░░░░░  loading weights: 1 GiB of 4 GiB" in line
        terminal.interrupt()
        assert "far goes on: roundhouse replicas far" in terminal.read_to_the_end()
        assert terminal.end() == 130
    assert "25 % ███░░░░░░░░░  loading weights: 1 GiB of 4 GiB" in cli("replicas", "far").out
    assert "loading weights: 1 GiB of 4 GiB" in cli("top", "--once").out


def test_ctrl_c_stops_waiting_and_leaves_the_deployment(cli: Cli) -> None:
    with cli.start("launch", "left", "-n", "demo", "--label", "script=stuck") as launching:
        assert launching.stderr is not None
        assert "left-0" in launching.stderr.readline()
        launching.send_signal(signal.SIGINT)
        _, err = launching.communicate(timeout=30)
    assert launching.returncode == 130
    assert "left goes on: roundhouse replicas left" in err
    assert "Traceback" not in err
    assert json.loads(cli("list", "--json").out)["deployments"][0]["name"]
    assert "left-0" in cli("replicas", "left").out


def test_a_list_is_a_table_with_what_is_old_below(cli: Cli) -> None:
    ended = cli("list")
    header, *rows = ended.out.splitlines()
    assert header.split()[:4] == ["DEPLOYMENT", "STATE", "READY", "MODEL"]
    assert ["demo", "ready", "3/3", "demo"] in [row.split()[:4] for row in rows]
    assert rows[-1] == "nodes/two does not report: what is shown of it is old"


def test_nodes_show_the_host_and_each_gpu_with_its_replicas(cli: Cli) -> None:
    lines = cli("nodes").out.splitlines()
    assert lines[1].split()[:5] == ["one", "ready", "host,", "2", "cpu"]
    assert "gpu 0, simulated" in lines[2]
    assert "demo-0" in lines[2]
    assert "demo-1" in lines[3]


def test_scaling_waits_until_exactly_that_many_are_ready(cli: Cli) -> None:
    assert cli("launch", "grow", "-n", "demo").status == 0
    ended = cli("scale", "grow", "3")
    assert ended.status == 0, ended.err
    assert "grow has 3 replicas after" in ended.out
    assert json.loads(cli("scale", "grow", "1", "--json").out)["ready_replica_count"] == 1
    assert len(json.loads(cli("replicas", "grow", "--json").out)["replicas"]) == 1
    assert "is wanted with 2 replicas" in cli("scale", "grow", "2", "--no-wait").out


def test_scaling_to_a_count_that_somebody_else_replaces_is_not_a_success(cli: Cli) -> None:
    assert cli("launch", "short", "-n", "demo", "--label", "script=short").status == 0
    with cli.start("scale", "short", "4") as scaling:
        assert scaling.stderr is not None
        while "starting" not in scaling.stderr.readline():
            pass
        assert "has 3 replicas after" in cli("scale", "short", "3").out
        out, err = scaling.communicate(timeout=30)
    assert (scaling.returncode, out) == (1, "")
    assert (
        'roundhouse: deployment "short" was asked to have a replica_count of 4 (generation 2) and meanwhile one of 3 '
        "(generation 3), which holds: ask again to change it\n"
    ) in err


NAMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "of the catalog": (
        "-n qwen3 -s 4 -f pytorch -q none --model-engine Transformers",
        "qwen3",
        {"family": {"family": "qwen3", "size_in_billions": "4", "format": "pytorch", "quantization": "none"}},
    ),
    "at first": ("qwen1.5-chat -s 0_5 -q Int4", "qwen1-5-chat", {"family": {"quantization": "Int4"}}),
    "behind a bare endpoint": ("-e qwen2.5 --env A 0 --env B 1", "qwen2-5", {"family": {"family": "qwen2.5"}}),
    "beside its name": ("-u spoken demo", "spoken", {"builtin": "demo"}),
    "of the hub": ("Qwen/Qwen3-4B@v1", "qwen3-4b", {"repository": {"id": "Qwen/Qwen3-4B", "revision": "v1"}}),
    "a path": ("files --model_path /m", "files", {"path": "/m"}),
    "a path and a name": ("-n qwen3.5 -mp /m -f pytorch", "qwen3-5", {"path": "/m"}),
}


@pytest.mark.parametrize(("flags", "name", "model"), NAMES.values(), ids=NAMES)
def test_a_launch_names_a_model_and_its_deployment(cli: Cli, flags: str, name: str, model: dict[str, Any]) -> None:
    ended = cli("launch", *flags.split(), "--json")
    assert ended.status == 0, ended.err
    stored = json.loads(ended.out)
    assert stored["name"] == f"deployments/{name}"
    [(kind, said)] = stored["model"].items()
    [(wanted, expected)] = model.items()
    assert kind == wanted
    assert said == expected if isinstance(expected, str) else said.items() >= expected.items()
    assert cli("terminate", name, "--grace", "0").status == 0


def test_an_endpoint_is_where_it_is_launched(cli: Cli) -> None:
    for url in (cli.address, f"http://{cli.address}/"):
        flags = ["launch", "-e", url, "-n", "demo", "-u", "elsewhere"]
        ended = subprocess.run(cli.command("--address", "127.0.0.1:1", *flags), capture_output=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert cli("terminate", "elsewhere", "--grace", "0").status == 0


def test_a_node_is_named_by_its_id_its_host_or_an_address(cli: Cli) -> None:
    for host in ("one", "one.example", "one:9997"):
        ended = cli("launch", "-n", "demo", "-u", "there", "--worker-ip", host, "--gpu-idx", "1", "--json")
        assert ended.status == 0, ended.err
        allowed = json.loads(ended.out)["placement"]["allowed_gpus"]
        assert allowed == [{"node": "nodes/one", "indexes": [1], "uuids": []}]
        assert cli("terminate", "there", "--grace", "0").status == 0


def test_flags_of_xinference_that_ask_for_what_is_so_are_taken(cli: Cli) -> None:
    flags = "--model-type LLM --model-format pytorch --quantization none --n-gpu auto --n-worker 1 --trust-remote-code"
    ended = cli("launch", "same", "-n", "demo", *flags.split(), "False", "--disable-virtual-env", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert cli("terminate", "same", "--grace", "0").status == 0


def test_a_ready_replica_whose_engine_does_not_answer_says_so(cli: Cli) -> None:
    assert cli("launch", "mute", "-n", "demo", "--label", "script=mute").status == 0
    with cli.start("replicas", "mute", "--watch") as watching:
        assert watching.stdout is not None
        while "does not answer" not in watching.stdout.readline():
            pass
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    [line] = [each for each in cli("replicas").out.splitlines() if each.startswith("mute-0")]
    assert line.split()[1] == "ready"
    assert line.endswith("the engine does not answer: it has been silent for 6 s")
    assert "serving" not in cli("replicas", "demo").out
    assert cli("terminate", "mute", "--grace", "0").status == 0


def test_terminating_waits_until_it_is_gone(cli: Cli) -> None:
    assert cli("launch", "brief", "-n", "demo").status == 0
    ended = cli("terminate", "brief", "--grace", "1")
    assert (ended.status, ended.out.split(" after ")[0]) == (0, "brief is gone")
    assert cli("replicas", "brief").status == 1


def test_a_watch_prints_changes_until_it_is_interrupted(cli: Cli) -> None:
    with cli.start("replicas", "demo", "--watch", "--json") as watching:
        assert watching.stdout is not None
        events = [json.loads(watching.stdout.readline()) for _ in range(4)]
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
    assert [next(iter(event)) for event in events] == ["changed", "changed", "changed", "bookmark"]
    assert (watching.returncode, err.strip()) == (130, "")
