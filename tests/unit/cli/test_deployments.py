"""Launching, listing, scaling and terminating, as a person and as a script see it."""

import json
import signal

from tests.unit.cli.conftest import Cli


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
        "--batch-interval", "0.25", "--max-model-len", "1024", "--kv-cache-memory", "64MiB",
        "--label", "team=search", "--allow-pending", "--no-wait", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    stored = json.loads(ended.out)
    assert stored["name"] == "deployments/flags"
    assert stored["model"]["path"].startswith("/")
    assert stored["model"]["path"].endswith("/models/qwen")
    assert (stored["engine"], stored["replica_count"], stored["labels"]) == ("torch", 2, {"team": "search"})
    assert stored["placement"] == {"strategy": "idle_first", "gpu_count": 2, "memory_bytes": str(5 << 30)}
    assert stored["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "x y"}]
    options = stored["engine_options"]
    assert (options["batch_size"], options["batch_interval"], options["max_model_len"]) == (8, "0.250s", 1024)
    assert options["kv_cache_memory_bytes"] == str(64 << 20)


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
    assert "loading weights" in ended.err
    assert ended.err.endswith("; it stays: `roundhouse terminate slow` ends it\n")


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
