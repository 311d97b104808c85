"""An engine gets the secrets of its deployment; what it writes of them is not passed on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1.deployment_pb2 import EnvVar
from tests.support.supervision import FAILED, READY, Node, wanted


def replica(script: str = "", **secrets: str) -> wire.EngineAssignment:
    it = wanted(script=script)
    for name, value in secrets.items():
        it.spec.env.append(EnvVar(name=name, value=value))
        it.spec.secret_names.append(name)
    return it


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def files_with(text: bytes, folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file() and text in each.read_bytes()]


async def test_a_secret_is_in_the_environment_of_the_engine_and_in_files_for_their_owner_alone(node: Node) -> None:
    await node.assign(replica(TOKEN="hunter2 é"))
    report = await node.until_state(READY)
    assert "TOKEN=hunter2 é".encode() in environment_of(report.pid)
    holders = files_with(b"hunter2", node.folder)
    assert sorted(each.name for each in holders) == ["assignment.json", "spec.json"]
    assert {each.stat().st_mode & 0o777 for each in holders} == {0o600}
    assert "hunter2" not in str(report)


# An engine that dies so writes "first line\nlast words".
@pytest.mark.parametrize(
    ("secrets", "shown"),
    [
        ({"A": "words"}, ["first line", "last [secret]"]),
        ({"A": "last", "B": "last words"}, ["first line", "[secret]"]),
        ({"A": "first line\nlast words"}, ["[secret]"]),
        ({"A": "first line\nand another"}, ["[secret]", "last words"]),
        ({"A": "something else"}, ["first line", "last words"]),
    ],
    ids=["a part of a line", "one within another", "several lines", "one line of several", "another one"],
)
async def test_the_last_words_of_an_engine_are_shown_without_its_secrets(
    node: Node, secrets: dict[str, str], shown: list[str]
) -> None:
    await node.assign(replica("exit=37", **secrets))
    failed = await node.until_state(FAILED)
    assert list(failed.last_exit.stderr_lines) == shown


async def test_an_engine_is_not_started_without_a_secret_that_nobody_can_open(node: Node) -> None:
    it = replica(A="hunter2")
    it.spec.unopened_names.append("TOKEN")
    await node.assign(it)
    failed = await node.until_state(FAILED)
    assert "cannot open its secrets TOKEN: give it back the key that it had (--secrets-key)" in failed.message


async def test_secrets_stay_hidden_when_the_control_plane_cannot_open_them_any_more(node: Node) -> None:
    await node.assign(replica(A="last words"))
    report = await node.until_state(READY)
    shut = wanted()
    shut.spec.unopened_names.append("A")
    await node.assign(shut)
    os.kill(report.pid, signal.SIGUSR1)
    failed = await node.until(lambda each: "cannot open its secrets A" in each.message)
    assert "last words" not in str(failed)
    assert "[secret]" in str(failed.last_exit.stderr_lines)
