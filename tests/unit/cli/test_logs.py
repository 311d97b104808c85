"""`roundhouse logs`: whose logs, which lines, and how it ends."""

from __future__ import annotations

import json
import re
import signal

import pytest

from roundhouse.cli.values import ago
from tests.support.terminal import Terminal
from tests.unit.cli.conftest import Cli

DEMO_1 = "deployments/demo/replicas/1"


def test_one_replica_is_named_by_its_label_or_its_name_and_its_lines_are_shown_as_they_are(cli: Cli) -> None:
    for name in ("demo-1", DEMO_1):
        shown = cli("logs", name)
        assert (shown.status, shown.out) == (0, f"\asince any name={DEMO_1}\naside\n")
        assert shown.err == "(2 KiB were rotated away before they could be shown)\n"


def test_lines_of_several_replicas_begin_with_the_name_of_theirs(cli: Cli) -> None:
    shown = cli("logs", "demo")
    assert shown.status == 0
    assert [line.partition(" | ")[0] for line in shown.out.splitlines()] == [
        "demo-0", "demo-0", "demo-1", "demo-1", "demo-2", "demo-2",
    ]  # fmt: skip
    assert shown.err.startswith("demo-0 | (2 KiB")


def test_what_is_asked_reaches_the_control_plane(cli: Cli) -> None:
    shown = cli("logs", "demo-1", "--tail", "5", "--since", "5m", "--previous", "--stderr")
    asked = re.escape(f"name={DEMO_1} tail_line_count=5 previous_life=True stream=2")
    assert re.match(rf"\asince 3\d\d {asked}\n", shown.out)
    assert "tail_line_count=0 stream=1" in cli("logs", "demo-1", "--tail", "0", "--stdout").out


def test_json_is_an_object_a_line_that_names_the_replica(cli: Cli) -> None:
    objects = [json.loads(line) for line in cli("logs", "demo", "--json").out.splitlines()]
    assert {each["replica"] for each in objects} == {f"deployments/demo/replicas/{index}" for index in range(3)}
    assert objects[1]["stream"] == "LOG_STREAM_STDERR"
    assert objects[1]["text"] == "aside"


@pytest.mark.parametrize("name", ["demo", "demo-1"])
def test_ctrl_c_ends_a_follow_cleanly(cli: Cli, name: str) -> None:
    with cli.start("logs", name, "--follow") as following:
        assert following.stdout is not None
        assert "follow=True" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=60)
    assert following.returncode == 130
    assert "Traceback" not in err


def test_a_terminal_shows_what_it_would_obey(cli: Cli) -> None:
    with Terminal(cli.command("logs", "demo-1"), cli.environ()) as terminal:
        shown = terminal.read_to_the_end()
    assert "\ufffdsince any" in shown
    assert "\a" not in shown


UNKNOWN = {
    "deployment": "other",
    "replica of none": "other-1",
    "replica": "demo-7",
    "name": "deployments/demo/replicas/7",
}


@pytest.mark.parametrize("name", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_unknown_is_refused_in_one_line(cli: Cli, name: str) -> None:
    shown = cli("logs", name)
    assert (shown.status, shown.out, len(shown.err.splitlines())) == (1, "", 1)
    assert "is unknown" in shown.err


AGES = {"90": 90.0, "90s": 90.0, "1.5m": 90.0, "2h": 7200.0, "1d": 86400.0}


@pytest.mark.parametrize(("text", "seconds"), AGES.items(), ids=AGES)
def test_how_far_to_look_back_is_read(text: str, seconds: float) -> None:
    assert ago(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "5 m", "5w", "nan", "yesterday"])
def test_what_is_no_time_is_a_usage_error_with_an_example(cli: Cli, text: str) -> None:
    shown = cli("logs", "demo", f"--since={text}")
    assert shown.status == 2
    assert "write seconds, or 90s, 5m, 2h, 1d" in shown.err


def test_what_cannot_be_shown_of_some_replicas_is_said_and_fails_only_if_it_is_all(cli: Cli) -> None:
    launched = cli("launch", "demo", "--model-uid", "waiting", "--replica", "2", "--label", "script=stuck", "--no-wait")
    assert launched.status == 0
    shown = cli("logs", "waiting")
    assert (shown.status, shown.out) == (1, "")
    assert shown.err.count("it is PENDING") == 3  # each of them, and how the command ends
