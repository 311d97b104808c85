"""Nodes are taken out of use, and into it again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.unit.cli.conftest import Cli


@pytest.fixture(autouse=True)
def in_use(cli: Cli) -> Iterator[None]:
    yield
    assert cli("uncordon", "one").status == 0


def state_of_one(cli: Cli) -> str:
    return cli("nodes").out.splitlines()[1].partition("host")[0].strip()


def test_a_node_is_cordoned_shown_so_and_uncordoned(cli: Cli) -> None:
    assert cli("cordon", "one").out == "one takes no new replicas and keeps 3 replicas\n"
    assert state_of_one(cli).endswith("ready, cordoned")
    assert "ready, cordoned" in cli("top", "--once").out
    assert cli("uncordon", "nodes/one").out == "one takes replicas again\n"
    assert state_of_one(cli).endswith("ready")


def test_a_drain_waits_until_nothing_is_left(cli: Cli) -> None:
    ended = cli("drain", "one", "--grace", "3", "--allow-unserved")
    assert ended.status == 0, ended.err
    assert ended.out.startswith("one is empty after")
    shown = json.loads(cli("drain", "one", "--grace", "3", "--no-wait", "--json").out)
    assert (shown["drain"]["grace"], shown["is_cordoned"]) == ("3s", True)
    assert "draining" in state_of_one(cli)


def test_a_drain_that_finds_no_room_says_what_is_lacking_and_stays_wanted(cli: Cli) -> None:
    ended = cli("drain", "one", "--timeout", "0.5")
    assert ended.status == 1
    first, *_, last = ended.err.splitlines()
    assert first == "demo-0 demo-1 demo-2: 3 replicas are left; demo-0 stays: there is no room"
    assert 'node "one" is not drained after 0.5 s: 3 replicas are left; demo-0 stays: there is no room' in last
    assert "draining" in state_of_one(cli)
    assert cli("drain", "one", "--no-wait").out == "one is being drained\n"


@pytest.mark.parametrize("command", ["cordon", "uncordon", "drain"])
def test_a_node_that_is_not_there_is_refused_by_name(cli: Cli, command: str) -> None:
    ended = cli(command, "two")
    assert (ended.status, ended.out) == (1, "")
    assert 'node "nodes/two" is unknown' in ended.err


@pytest.mark.parametrize("command", ["cordon", "uncordon"])
def test_json_is_the_node(cli: Cli, command: str) -> None:
    shown = json.loads(cli(command, "one", "--json").out)
    assert (shown["name"], shown["is_cordoned"]) == ("nodes/one", command == "cordon")
