"""Whatever goes wrong is one readable line and the right exit status."""

import pytest

from tests.unit.cli.conftest import Cli

CASES = {
    "unknown command": (("frobnicate",), 2, "no such command"),
    "unknown option": (("launch", "--size-in-billions", "7"), 2, "no such option"),
    "missing argument": (("cancel", "demo"), 2, "missing argument"),
    "no number": (("scale", "demo", "many"), 2, "not a valid int"),
    "no address": (("--address", "nonsense", "list"), 2, "write HOST:PORT"),
    "no such authority": (("--tls-ca", "/nowhere.pem", "list"), 2, "cannot read /nowhere.pem"),
    "no model": (("launch", "chat"), 2, "--model-path"),
    "no name": (("launch", "--model-path", "/m"), 2, "no name"),
    "two names": (("launch", "chat", "-u", "talk", "-n", "demo"), 2, "two names"),
    "bad size": (("launch", "-n", "demo", "--memory", "5 apples"), 2, '--memory is "5 apples"'),
    "bad label": (("launch", "-n", "demo", "--label", "team"), 2, "write KEY=VALUE"),
    "tour without demo": (("up", "--tour", "--no-demo"), 2, "--tour needs the demo"),
    "nobody answers": (("--address", "127.0.0.1:1", "list"), 3, 'start one with "roundhouse up"'),
    "nobody answers a stream": (("--address", "127.0.0.1:1", "chat", "demo", "hi"), 3, "does not answer"),
    "duplicate name": (("launch", "-n", "demo"), 1, "exists: pick another name"),
    "model not there": (("launch", "lost", "-mp", "/missing"), 1, "no node has /missing"),
    "replicas below 0": (("launch", "less", "-n", "demo", "-r", "-1"), 1, "deployment.replica_count"),
    "does not fit": (("launch", "big", "-n", "demo", "--memory", "30GiB"), 1, "needs 30 GiB"),
    "number out of range": (("generate", "demo", "x", "--max-tokens", "5000000000"), 1, "sampling"),
    "unknown deployment": (("generate", "nowhere", "x"), 1, '"nowhere" is unknown'),
    "unknown deployment's replicas": (("replicas", "nowhere"), 1, '"nowhere" is unknown'),
    "nothing ready": (("chat", "asleep", "hi"), 1, "no replica that is READY"),
    "prompt too long": (("generate", "demo", "word " * 3000), 1, "the context 2048"),
    "broken stream": (("generate", "demo", "break"), 1, "the engine of"),
    "deadline": (("generate", "demo", "wait", "--timeout", "0.2"), 1, "allow more time"),
    "terminate unknown": (("terminate", "nowhere"), 1, '"nowhere" is unknown'),
    "no such text": (("generate", "demo", "\udcff"), 1, "prompt"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), CASES.values(), ids=CASES.keys())
def test_a_refusal_is_one_line_and_a_status(cli: Cli, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = cli(*arguments)
    assert ended.status == status, ended.err
    assert ended.err.startswith("roundhouse: ")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert message in ended.err
