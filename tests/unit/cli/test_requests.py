"""Requests as the command line shows them, and follows them."""

from __future__ import annotations

import json
import signal

import pytest
from rich.console import Console

from roundhouse.cli.requests import request_facts, request_table
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1 import generation_pb2, receipt_pb2, request_pb2
from tests.unit.cli.conftest import Cli

NOW_S = 1_800_000_000.0
ENDED = request_pb2.InferenceRequest(
    deployment="chat",
    request_id="b2",
    state=request_pb2.REQUEST_STATE_ENDED,
    replica="deployments/chat/replicas/1",
    attempt=2,
    positions=[{"choice": 0, "output_token_count": 132}, {"choice": 1, "output_token_count": 8}],
    prompt_token_count=17,
    arrival_time=to_timestamp(NOW_S - 95),
    priority=3,
    labels={"team": "search", "app": "site"},
    on_disconnect={"policy": generation_pb2.DISCONNECT_POLICY_DETACH, "ttl": to_duration(60)},
    finishes=[
        generation_pb2.Finished(
            reason=generation_pb2.FINISH_REASON_LENGTH,
            output_token_count=132,
            exactness=generation_pb2.EXACTNESS_APPROXIMATE,
        )
    ],
    receipt=receipt_pb2.CancelReceipt(
        request_id="b2",
        outcome=receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED,
        level=receipt_pb2.CANCEL_LEVEL_FREED,
        freed_block_count=4,
        free_block_count_before=6,
        free_block_count=10,
        total_block_count=10,
    ),
)
RUNNING = request_pb2.InferenceRequest(
    request_id="a1",
    state=request_pb2.REQUEST_STATE_RUNNING,
    replica="deployments/chat/replicas/0",
    attempt=1,
    positions=[{"choice": 0, "output_token_count": 7}],
    arrival_time=to_timestamp(NOW_S - 2),
    follower_count=2,
)


def drawn(what: object) -> list[list[str]]:
    console = Console(width=120, markup=False, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return [line.split() for line in capture.get().splitlines()]


def test_requests_are_a_line_each() -> None:
    assert drawn(request_table([RUNNING, ENDED], NOW_S)) == [
        ["REQUEST", "STATE", "REPLICA", "ATTEMPT", "TOKENS", "AGE", "FOLLOWERS"],
        ["a1", "running", "chat-0", "1", "7", "2", "s", "2"],
        ["b2", "ended", "chat-1", "2", "140", "1", "m", "35", "s", "0"],
    ]


def test_one_request_is_a_fact_a_line_with_its_receipt_below() -> None:
    lines = [" ".join(each) for each in drawn(request_facts(ENDED, NOW_S))]
    assert lines == [
        "request b2",
        "state ended",
        "replica chat-1, attempt 2",
        "tokens 140 of output, 17 of prompt",
        "came 1 m 35 s ago",
        "priority 3",
        "labels app=site, team=search",
        "followers 0",
        "without any goes on for 1 m 00 s",
        "choice 0 length after 132 tokens, approximate",
        "",
        "request b2",
        "outcome already finished",
        "blocks freed 4 (6 → 10 free of 10)",
    ]


def test_who_detaches_and_does_not_say_for_how_long_does_so_for_a_minute() -> None:
    detached = request_pb2.InferenceRequest(on_disconnect={"policy": generation_pb2.DISCONNECT_POLICY_DETACH})
    assert ["without", "any", "goes", "on", "for", "1", "m", "00", "s"] in drawn(request_facts(detached, NOW_S))


def test_what_runs_is_listed_followed_and_ended(cli: Cli) -> None:
    with cli.start("generate", "demo", "on and on", "--ignore-eos", "--request-id", "long") as generating:
        assert generating.stdout is not None
        assert generating.stdout.read(2) == "on"
        newest = cli("requests", "demo").out.splitlines()[1]
        assert newest.split()[:3] == ["long", "running", "demo-0"]
        with cli.start("attach", "demo", "long", "--after", "1") as following:
            assert following.stdout is not None
            assert following.stdout.read(7) == " and on"
            following.send_signal(signal.SIGINT)
            _, err = following.communicate(timeout=30)
        assert (following.returncode, err.strip()) == (130, "")
        assert json.loads(cli("requests", "demo", "long", "--json").out)["state"] == "REQUEST_STATE_RUNNING"
        assert cli("cancel", "demo", "long").status == 0
        generating.communicate(timeout=30)
    shown = cli("requests", "demo", "long").out
    assert "state        ended" in shown
    assert "outcome       cancelled" in shown


def test_what_has_ended_can_be_shown_again(cli: Cli) -> None:
    assert cli("generate", "demo", "one two three", "--request-id", "done").out == "one two three\n"
    assert cli("attach", "demo", "done").out == "one two three\n"
    assert cli("attach", "demo", "done", "--after", "0=2", "--location", "here").out == " three\n"
    events = [json.loads(line) for line in cli("attach", "demo", "done", "--after", "2", "--json").out.splitlines()]
    assert [next(iter(each)) for each in events] == ["started", "delta", "finished", "usage"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("requests", "nowhere"), 1, '"nowhere" is unknown'),
        (("requests", "demo", "never"), 1, 'request "never" is unknown'),
        (("attach", "demo", "never"), 1, 'request "never" is unknown'),
        (("attach", "demo", "never", "--after", "x"), 2, '--after is "x": write N, or CHOICE=N'),
        (("attach", "demo", "never", "--after", "2147483648"), 2, "no request is that long"),
        (("attach", "demo", "never", "--after", "2147483648=1"), 2, "no request is that long"),
        (("--address", "127.0.0.1:1", "attach", "demo", "never"), 3, "does not answer"),
        (("--address", "127.0.0.1:1,nonsense", "requests", "demo"), 2, "write HOST:PORT"),
        (("generate", "demo", "x", "--failover", "perhaps"), 2, "is not one of"),
        (("generate", "demo", "x", "--detach", "-1"), 2, "no time to wait"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_refusal_is_one_line_and_a_status(cli: Cli, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = cli(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1, ended.err


def test_several_addresses_are_tried_one_after_another(cli: Cli) -> None:
    assert cli("--address", f"127.0.0.1:1,{cli.address}", "chat", "demo", "one two").out == "one two\n"
