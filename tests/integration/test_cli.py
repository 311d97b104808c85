"""The command line over a real cluster: `up` starts it, and every other command asks it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE_S = 110


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    status: int
    out: str
    err: str


def roundhouse(*arguments: str, address: str = "127.0.0.1:1", stdin: str = "") -> Ended:
    environ = {**os.environ, "ROUNDHOUSE_ADDRESS": address}
    command = [sys.executable, "-m", "roundhouse.cli", *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environ, timeout=PATIENCE_S, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def processes_of(state_dir: Path) -> list[psutil.Process]:
    """Returns every process that was started for this directory: `up`, its two children, and the engines."""
    found = []
    for each in psutil.process_iter():
        try:
            if any(str(state_dir) in argument for argument in each.cmdline()):
                found.append(each)
        except psutil.Error:
            continue
    return found


class Up:
    """`roundhouse up --json` while it runs."""

    def __init__(self, state_dir: Path, *options: str, port: int = 0) -> None:
        self.state_dir = state_dir
        command = [sys.executable, "-m", "roundhouse.cli", "up", "--json", "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--state-dir", str(state_dir), "--simulate-gpus", "2x24GiB", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, event: str) -> list[dict[str, Any]]:
        """Returns what is told up to and with an event of this name."""
        assert self.process.stdout is not None
        told: list[dict[str, Any]] = []
        for line in self.process.stdout:
            told.append(json.loads(line))
            if told[-1]["event"] == event:
                return told
        raise AssertionError(f"{event!r} was never told, but {told}, {self.process.communicate()[1]}")

    def interrupt(self) -> int:
        """Does what Ctrl-C does, and returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode

    def close(self) -> None:
        """Leaves nothing behind, whatever a test did."""
        self.process.kill()
        for each in processes_of(self.state_dir):
            each.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("cluster"), "--replicas", "2")
    yield up
    up.close()


@pytest.fixture(scope="module")
def address(up: Up) -> str:
    return str(up.until("serving")[-1]["address"])


def test_up_once_shows_an_answer_and_a_cancel_and_leaves_nothing_running(tmp_path: Path) -> None:
    up = Up(tmp_path, "--tour", "--once", "--replicas", "3")
    try:
        told = {each["event"]: each for each in up.until("stopped")}
        assert up.process.wait(PATIENCE_S) == 0
        assert processes_of(tmp_path) == []
    finally:
        up.close()
    gpus = [[gpu["index"] for gpu in each["gpus"]] for each in told["deployment"]["replicas"]]
    assert sorted(map(len, gpus)) == [1, 1, 1]
    assert sorted([gpus.count([0]), gpus.count([1])]) == [1, 2]
    assert told["answered"]["text"]
    receipt = told["cancelled"]["receipt"]
    assert receipt["outcome"] == "CANCEL_OUTCOME_CANCELLED"
    assert receipt["output_token_count"] < 1500
    assert int(receipt["freed_block_count"]) == int(receipt["free_block_count"]) - int(
        receipt["free_block_count_before"]
    )
    host, _, port = told["control plane"]["address"].rpartition(":")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the past may linger, a listener not
        free.bind((host, int(port)))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["list"], ["demo", "ready", "2/2"]),
        (["replicas", "demo"], ["demo-0", "demo-1", "ready"]),
        (["nodes"], ["gpu 0, simulated", "gpu 1, simulated", "demo-0"]),
        (["top"], ["1 node  2 GPUs  2 of 2 replicas ready", "gpu 0", "gpu 1", "░ ", "demo-0", "0 running"]),
    ],
    ids=["list", "replicas", "nodes", "top"],
)
def test_what_runs_is_shown(address: str, arguments: Sequence[str], shown: Sequence[str]) -> None:
    ended = roundhouse(*arguments, address=address)
    assert (ended.status, ended.err) == (0, "")
    assert [each for each in shown if each not in ended.out] == []


def test_an_answer_is_the_same_from_generate_chat_and_a_pipe(address: str) -> None:
    once = roundhouse("chat", "demo", "What is 2 + 3?", "--temperature", "0", address=address)
    piped = roundhouse("chat", "demo", "--temperature", "0", address=address, stdin="What is 2 + 3?\n")
    assert (once.status, once.err) == (0, "")
    assert once.out.strip()
    assert piped.out == once.out
    events = roundhouse("generate", "demo", "One day", "--max-tokens", "4", "--json", address=address).out.splitlines()
    kinds = [next(iter(json.loads(event))) for event in events]
    assert (kinds[0], kinds[-2:]) == ("started", ["finished", "usage"])


def test_an_answer_is_cancelled_by_its_id_from_elsewhere(address: str) -> None:
    command = [sys.executable, "-m", "roundhouse.cli", "--address", address, "generate", "demo", "One day"]
    # So many choices take longer than a command takes to start.
    asked = [*command, "--ignore-eos", "--max-tokens", "1900", "--n", "16", "--request-id", "long"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as generating:
        assert generating.stdout is not None
        assert generating.stdout.read(1)
        receipt = roundhouse("cancel", "demo", "long", "--json", address=address)
        _, err = generating.communicate(timeout=PATIENCE_S)
    assert receipt.status == 0, receipt.err
    assert json.loads(receipt.out)["outcome"] == "CANCEL_OUTCOME_CANCELLED"
    assert (generating.returncode, "was cancelled after" in err) == (1, True)
    assert roundhouse("cancel", "demo", "never", address=address).status == 1


def test_a_deployment_is_launched_scaled_and_terminated(address: str) -> None:
    launched = roundhouse("launch", "-n", "demo", "-u", "second", "--label", "team=x", address=address)
    assert launched.status == 0, launched.err
    assert "second is ready with 1 replica" in launched.out
    assert roundhouse("scale", "second", "0", address=address).status == 0
    assert roundhouse("chat", "second", "hi", address=address).status == 1
    terminated = roundhouse("terminate", "second", "--grace", "1", address=address)
    assert terminated.status == 0, terminated.err
    assert roundhouse("replicas", "second", address=address).status == 1


def test_a_launch_as_scripts_for_xinference_write_it_is_understood(address: str) -> None:
    flags = "-t LLM -f pytorch -q none -en transformers -r 1 --n-gpu 1 --gpu-idx 1 --max_model_len 64 --enable-thinking"
    variables = "--env A 0 --env B 1 --disable-virtual-env"
    launched = roundhouse("launch", "-e", "demo", *f"-u script {flags} {variables}".split(), address=address)
    assert launched.status == 0, launched.err
    [replica] = json.loads(roundhouse("replicas", "script", "--json", address=address).out)["replicas"]
    assert [each["index"] for each in replica["gpus"]] == [1]
    refused = roundhouse("chat", "script", "One day", "--max-tokens", "100", address=address)
    assert (refused.status, "the context holds 64" in refused.err) == (1, True)
    assert roundhouse("terminate", "script", "--grace", "0", address=address).status == 0
    unknown = roundhouse("launch", "demo", "-u", "other", "--gpu_memory_utilization", "0.9", address=address)
    assert (unknown.status, '"gpu_memory_utilization" is unknown to the engine torch' in unknown.err) == (1, True)


def test_settings_reach_engines_by_flag_and_by_variable_and_the_flag_goes_first(address: str) -> None:
    flags = ["--block-size", "32", "--kv-cache-memory", "8MiB", "--no-enable-prefix-caching"]
    variables = ["-ev", "ROUNDHOUSE_MAX_MODEL_LEN", "64", "-ev", "ROUNDHOUSE_BLOCK_SIZE", "8"]
    launched = roundhouse("launch", "-n", "demo", "-u", "set", *flags, *variables, address=address)
    assert launched.status == 0, launched.err
    [replica] = json.loads(roundhouse("replicas", "set", "--json", address=address).out)["replicas"]
    plain = json.loads(roundhouse("replicas", "demo", "--json", address=address).out)["replicas"][0]["load"]
    assert int(plain["total_block_count"]) > 2 * int(replica["load"]["total_block_count"])
    refused = roundhouse("generate", "set", "One day", "--max-tokens", "100", address=address)
    assert (refused.status, "the context holds 64" in refused.err) == (1, True)
    assert roundhouse("generate", "set", "One day", "--max-tokens", "4", address=address).status == 0
    bad = roundhouse("launch", "-n", "demo", "-u", "bad", "-ev", "ROUNDHOUSE_BLOCK_SIZE", "20", address=address)
    assert (bad.status, "deployment.env[0].value: 20 is not served: use one of 8, 16" in bad.err) == (1, True)
    assert roundhouse("terminate", "set", "--grace", "0", address=address).status == 0


def test_a_model_that_kills_its_engine_is_told_with_its_last_words(address: str) -> None:
    ended = roundhouse("launch", "dying", "-n", "demo", "-ev", "PYTHONHOME", "/nowhere", address=address)
    assert ended.status == 1
    [line] = [line for line in ended.err.splitlines() if line.startswith("roundhouse: ")]
    assert 'replica "dying-0" dies before it is ready; last it ended with exit code 1' in line
    assert "Fatal Python error" in ended.err
    assert roundhouse("terminate", "dying", "--grace", "0", address=address).status == 0


BAD = {
    "unknown deployment": (["chat", "nowhere", "hi"], "nowhere"),
    "duplicate name": (["launch", "demo", "-n", "demo"], "exists"),
    "malformed name": (["launch", "Bad_Name", "-n", "demo"], "Bad_Name"),
    "replicas below 0": (["scale", "demo", "-1"], "replica_count"),
    "no gpu that fits": (["launch", "big", "-n", "demo", "--memory", "30GiB"], "30 GiB"),
    "model missing": (["launch", "lost", "-mp", "/nowhere/model"], "/nowhere/model"),
    "model broken": (["launch", "torn", "-mp", "/dev"], "config.json"),
    "unknown family": (["launch", "-n", "qwen"], "did you mean qwen3"),
    "unknown strategy": (["launch", "best", "-n", "demo", "--strategy", "best"], "idle_first"),
    "prompt too long": (["generate", "demo", "again and " * 3000], "context"),
    "max_tokens of 0": (["generate", "demo", "hi", "--max-tokens", "0"], "max_tokens"),
    "temperature below 0": (["generate", "demo", "hi", "--temperature", "-1"], "temperature"),
    "top_p of 0": (["generate", "demo", "hi", "--top-p", "0"], "top_p"),
    "no content": (["generate", "demo", ""], "prompt"),
}


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_readable_line(address: str, arguments: Sequence[str], named: str) -> None:
    ended = roundhouse(*arguments, address=address)
    assert (ended.status, ended.out) == (1, "")
    [line] = ended.err.splitlines()
    assert line.startswith("roundhouse: ")
    assert named in line


def test_a_port_or_a_state_directory_in_use_ends_up_with_one_line(up: Up, address: str, tmp_path: Path) -> None:
    port = address.rpartition(":")[2]
    for options in (("--port", port, "--state-dir", str(tmp_path)), ("--port", "0", "--state-dir", str(up.state_dir))):
        ended = roundhouse("up", *options)
        assert ended.status == 2
        assert len(ended.err.splitlines()) == 1
        assert "in use" in ended.err
    assert processes_of(tmp_path) == []


def test_what_dies_is_started_again_and_engines_live_on(up: Up, address: str) -> None:
    def engines() -> set[int]:
        ended = roundhouse("replicas", "demo", "--json", address=address)
        ready = [each for each in json.loads(ended.out or "{}").get("replicas", []) if each["state"].endswith("READY")]
        return {int(each["engine_pid"]) for each in ready}

    before = engines()
    assert len(before) == 2
    for module in ("controlplane", "nodeagent"):
        [victim] = [each for each in processes_of(up.state_dir) if each.cmdline()[1:3] == ["-m", module]]
        victim.kill()
        assert "signal 9; it is started again" in up.until("warning")[-1]["message"]
        deadline_s = time.monotonic() + PATIENCE_S
        while engines() != before:
            assert time.monotonic() < deadline_s


def test_ctrl_c_ends_everything_and_the_next_up_has_the_same_deployments(tmp_path: Path) -> None:
    uids = []
    for _ in range(2):
        up = Up(tmp_path, "--replicas", "1")
        try:
            told = {each["event"]: each for each in up.until("serving")}
            [replica] = told["deployment"]["replicas"]
            uids.append(replica["uid"])
            assert up.interrupt() == 0
            assert processes_of(tmp_path) == []
        finally:
            up.close()
    assert len(set(uids)) == 1


def test_ctrl_c_while_it_launches_ends_with_130_and_leaves_nothing_running(tmp_path: Path) -> None:
    up = Up(tmp_path, "--replicas", "1")
    try:
        up.until("node agent")
        assert up.interrupt() == 130
        assert processes_of(tmp_path) == []
    finally:
        up.close()


def test_ctrl_c_while_it_ends_by_itself_is_noted_and_leaves_nothing_running(tmp_path: Path) -> None:
    up = Up(tmp_path, "--once", "--replicas", "1")
    try:
        up.until("stopping")
        for _ in range(2):
            up.process.send_signal(signal.SIGINT)
            assert "ending already" in up.until("warning")[-1]["message"]
        up.until("stopped")
        assert up.process.wait(PATIENCE_S) == 0
        assert processes_of(tmp_path) == []
    finally:
        up.close()


def test_ctrl_c_ends_engines_even_if_the_agent_is_dead_just_then(tmp_path: Path) -> None:
    up = Up(tmp_path, "--replicas", "1")
    try:
        up.until("serving")
        [agent] = [each for each in processes_of(tmp_path) if each.cmdline()[1:3] == ["-m", "nodeagent"]]
        agent.kill()
        assert up.interrupt() == 0
        assert processes_of(tmp_path) == []
    finally:
        up.close()
