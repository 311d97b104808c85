"""`roundhouse events`: what happened, newest last, and what happens."""

from __future__ import annotations

import asyncio
import json
import re
import signal

from tests.support.scripted_cluster import scripted_cluster
from tests.unit.cli.conftest import Cli


def test_events_are_a_table_with_the_newest_last(cli: Cli) -> None:
    shown = cli("events")
    assert shown.status == 0
    header, *rows = [re.split(r" {2,}", line.strip()) for line in shown.out.splitlines()]
    assert header == ["LAST", "OBJECT", "REASON", "COUNT", "MESSAGE"]
    assert [row[1:] for row in rows] == [
        ["nodes/one", "Lost", "1", "it does not report"],
        ["demo-1", "Died", "3", "the engine was killed by SIGKILL"],
        ["demo", "Created", "1", "it is wanted with 3 replicas"],
    ]


def test_those_of_one_deployment_alone_can_be_shown(cli: Cli) -> None:
    assert [line.split()[-1] for line in cli("events", "demo").out.splitlines()] == ["MESSAGE", "SIGKILL", "replicas"]
    assert cli("events", "other").out == "nothing has happened\n"


def test_json_is_the_list_of_the_contract(cli: Cli) -> None:
    listing = json.loads(cli("events", "nodes/one", "--json").out)
    assert [each["reason"] for each in listing["events"]] == ["Lost"]


def test_a_watch_shows_a_line_for_each_and_ctrl_c_ends_it_cleanly(cli: Cli) -> None:
    with cli.start("events", "--watch") as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline().rstrip() for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert "Traceback" not in err
    assert re.fullmatch(r"\d\d:\d\d:\d\d demo-1 Died: the engine was killed by SIGKILL \(3 times\)", lines[1])


async def test_a_watch_goes_on_where_it_was_when_the_control_plane_comes_back() -> None:
    async with scripted_cluster() as (serving, _, _):
        watching = Cli(serving.address).start("events", "--watch")
        assert watching.stdout is not None
        assert watching.stderr is not None
        for _ in range(3):
            await asyncio.to_thread(watching.stdout.readline)
        # The bookmark, and with it the cursor, has come with them.
    try:
        assert "does not answer" in await asyncio.to_thread(watching.stderr.readline)
        async with scripted_cluster(serving.port):
            assert "nodes/one Returned" in await asyncio.to_thread(watching.stdout.readline)
    finally:
        watching.kill()
        await asyncio.to_thread(watching.communicate)


def test_a_watch_in_json_is_a_notice_a_line(cli: Cli) -> None:
    with cli.start("events", "--watch", "--json") as watching:
        assert watching.stdout is not None
        notices = [json.loads(watching.stdout.readline()) for _ in range(4)]
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert [next(iter(each)) for each in notices] == ["changed", "changed", "changed", "bookmark"]
    assert notices[0]["cursor"] == "here"
