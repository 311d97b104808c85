"""Generating, chatting and cancelling."""

import array
import fcntl
import json
import os
import select
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from tests.unit.cli.conftest import Cli


def test_a_continuation_streams_to_standard_output_and_nothing_else_does(cli: Cli) -> None:
    ended = cli("generate", "demo", "one two three")
    assert (ended.status, ended.out, ended.err) == (0, "one two three\n", "")


def test_a_prompt_may_come_from_standard_input(cli: Cli) -> None:
    assert cli("generate", "demo", "-", stdin="from a pipe").out == "from a pipe\n"


def test_ctrl_c_while_a_prompt_is_read_from_standard_input_ends_with_130(cli: Cli) -> None:
    inner, outer = os.pipe()
    with cli.start("generate", "demo", "-", stdin=inner) as generating:
        os.write(outer, b"the beginning of\n")
        while _waiting_bytes(inner):  # once they are taken, it reads on
            assert generating.poll() is None
            select.select([], [], [], 0.02)
        generating.send_signal(signal.SIGINT)
        out, err = generating.communicate(timeout=30)
    os.close(outer)
    os.close(inner)
    assert (generating.returncode, out, err.strip()) == (130, "", "")


def _waiting_bytes(pipe: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


@pytest.mark.parametrize("command", [("generate", "demo", "-"), ("chat", "demo")], ids=lambda each: each[0])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_standard_input_that_is_no_text_is_refused_in_one_line(cli: Cli, command: tuple[str, ...], locale: str) -> None:
    ended = subprocess.run(
        cli.command(*command), input=b"caf\xe9\n", capture_output=True, env=cli.environ(LC_ALL=locale), check=False
    )
    assert (ended.returncode, ended.stdout) == (2, b"")
    [line] = ended.stderr.decode().splitlines()
    assert line.startswith("roundhouse: standard input is not UTF-8: give text in UTF-8")


def test_sampling_flags_bound_the_answer(cli: Cli) -> None:
    ended = cli("generate", "demo", "a b c", "--max-tokens", "2", "--temperature", "0", "--top-p", "0.5", "--stop", "z")
    assert (ended.status, ended.out) == (0, "a b\n")


def test_several_choices_are_written_one_after_the_other(cli: Cli) -> None:
    ended = cli("generate", "demo", "one two", "--n", "3")
    assert ended.out.splitlines() == ["one two", "choice 1:", "one1 two1", "choice 2:", "one2 two2"]


def test_an_echo_stands_before_the_answer(cli: Cli) -> None:
    assert cli("generate", "demo", "one two", "--echo").out == "one two one two\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--json-schema", "/nowhere.json"), "--json-schema /nowhere.json cannot be read: No such file or directory"),
        (("--logit-bias", "7"), '--logit-bias is "7": write ID=BIAS'),
        (("--regex", "a", "--choice", "b"), "regex and choice are two forms: give one"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_a_flag_that_cannot_be_sent_says_what_to_do(cli: Cli, flags: tuple[str, ...], message: str) -> None:
    ended = cli("generate", "demo", "x", *flags)
    assert ended.status in (1, 2)
    assert message in ended.err


def test_json_is_one_event_a_line_with_the_names_of_the_contract(cli: Cli) -> None:
    ended = cli("generate", "demo", "one two", "--json", "--request-id", "mine")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [next(iter(event)) for event in events] == ["started", "delta", "delta", "finished", "usage"]
    assert events[0]["started"]["request_id"] == "mine"
    assert events[2]["delta"]["first_position"] == 1


def test_ctrl_c_cancels_an_answer_and_ends_with_130(cli: Cli) -> None:
    with cli.start("generate", "demo", "on and on", "--ignore-eos") as generating:
        assert generating.stdout is not None
        assert generating.stdout.read(2) == "on"
        generating.send_signal(signal.SIGINT)
        _, err = generating.communicate(timeout=30)
    assert (generating.returncode, err.strip()) == (130, "")


def test_an_answer_that_somebody_else_cancels_is_not_a_success(cli: Cli) -> None:
    with cli.start("generate", "demo", "on and on", "--ignore-eos", "--request-id", "theirs") as generating:
        assert generating.stdout is not None
        assert generating.stdout.read(2) == "on"
        receipt = cli("cancel", "demo", "theirs")
        _, err = generating.communicate(timeout=30)
    assert receipt.status == 0
    assert dict(line.split(maxsplit=1) for line in receipt.out.splitlines())["outcome"].strip() == "cancelled"
    assert "3 (97 → 100 free of 100)" in receipt.out
    assert generating.returncode == 1
    assert "roundhouse: the request was cancelled after" in err


@pytest.mark.parametrize(("request_id", "outcome"), [("never", "NOT_ARRIVED"), ("ghost", "UNPROVEN")])
def test_a_cancel_that_proves_no_end_is_not_a_success(cli: Cli, request_id: str, outcome: str) -> None:
    ended = cli("cancel", "demo", request_id, "--json")
    assert (ended.status, json.loads(ended.out)["outcome"]) == (1, f"CANCEL_OUTCOME_{outcome}")
    assert outcome.lower().replace("_", " ") in cli("cancel", "demo", request_id).out


def test_a_reader_that_has_seen_enough_ends_the_answer_without_a_word(cli: Cli) -> None:
    with cli.start("generate", "demo", "on and on", "--ignore-eos") as generating:
        assert generating.stdout is not None
        assert generating.stdout.read(2) == "on"
        generating.stdout.close()
        assert generating.stderr is not None
        assert generating.stderr.read() == ""
    assert generating.returncode == 1


def test_an_answer_that_another_engine_goes_on_with_says_so_on_the_error_stream(cli: Cli) -> None:
    ended = cli("chat", "demo", "one two lost four", "--failover", "exact", "--session-key", "ada", "--detach", "30")
    assert (ended.status, ended.out) == (0, "one two lost four\n")
    assert ended.err == "resumed on deployments/demo/replicas/1 (EXACT) after 3 tokens\n"


def test_an_answer_without_failover_ends_with_its_engine(cli: Cli) -> None:
    ended = cli("generate", "demo", "one two lost four", "--failover", "never")
    assert (ended.status, ended.err) == (1, "roundhouse: its engine is gone\n")


def test_ctrl_c_cancels_what_would_go_on_without_its_client(cli: Cli) -> None:
    with cli.start("generate", "demo", "on and on", "--ignore-eos", "--request-id", "left") as generating:
        assert generating.stdout is not None
        assert generating.stdout.read(2) == "on"
        generating.send_signal(signal.SIGINT)
        generating.communicate(timeout=30)
    shown = json.loads(cli("requests", "demo", "left", "--json").out)
    assert shown["receipt"]["outcome"] == "CANCEL_OUTCOME_CANCELLED"


def test_a_single_message_is_answered_once(cli: Cli) -> None:
    assert cli("chat", "demo", "how are you").out == "how are you\n"


def test_messages_from_a_pipe_are_answered_one_by_one(cli: Cli) -> None:
    ended = cli("chat", "demo", stdin="first one\n\nsecond one\n")
    assert (ended.status, ended.out) == (0, "first one\nsecond one\n")


def test_at_a_terminal_ctrl_c_cancels_the_answer_and_the_conversation_goes_on(cli: Cli) -> None:
    with Terminal(cli.command("chat", "demo", "--ignore-eos"), cli.environ()) as terminal:
        for words in ("round and round", "again and again"):
            terminal.read_until("› ")
            terminal.write(f"{words}\n")
            terminal.read_until(f"{words} {words}")
            terminal.interrupt()
            terminal.read_until("cancelled")
            # At the prompt nothing moves, so the cancel has been sent before.
            newest = json.loads(cli("requests", "demo", "--json").out)["requests"][0]
            assert newest["receipt"]["outcome"] == "CANCEL_OUTCOME_CANCELLED"
        terminal.read_until("› ")
        terminal.interrupt_until("› ")
        terminal.write("\x04")
        assert terminal.end() == 0


def test_at_a_terminal_an_error_is_shown_and_the_conversation_goes_on(cli: Cli) -> None:
    with Terminal(cli.command("chat", "demo"), cli.environ()) as terminal:
        terminal.read_until("› ")
        terminal.write("break\n")
        terminal.read_until("roundhouse: the engine of")
        terminal.read_until("› ")
        terminal.write("hello there\n")
        shown = terminal.read_until("on demo-0")
        assert "2 tokens in 300 ms, the first after 41 ms" in shown
        terminal.read_until("› ")
        terminal.write("\x04")
        assert terminal.end() == 0


def test_at_a_terminal_a_single_answer_that_is_cancelled_ends_with_130(cli: Cli) -> None:
    with Terminal(cli.command("chat", "demo", "round and round", "--ignore-eos"), cli.environ()) as terminal:
        terminal.read_until("round round")
        terminal.interrupt()
        assert terminal.end() == 130


def test_at_a_terminal_json_for_a_file_is_all_that_the_file_gets(cli: Cli, tmp_path: Path) -> None:
    command = cli.command("chat", "demo", "--json", "--ignore-eos")
    with (tmp_path / "out").open("wb") as out, Terminal(command, cli.environ(), out=out) as terminal:
        terminal.read_until("Ctrl-D ends the conversation")
        for count in (1, 2):
            terminal.read_until("› ")
            terminal.write("round and round\n")
            while (tmp_path / "out").read_text().count('"first_position": 1,') < count:  # the second word
                assert terminal.process.poll() is None
                select.select([], [], [], 0.02)
            terminal.interrupt()
            terminal.read_until("cancelled")
        terminal.read_until("› ")
        terminal.interrupt_until("› ")
        terminal.write("\x04")
        assert terminal.end() == 0
    events = [json.loads(line) for line in (tmp_path / "out").read_text().split("\n")[:-1]]
    assert [next(iter(each)) for each in events].count("started") == 2
