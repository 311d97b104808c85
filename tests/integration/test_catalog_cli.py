"""`roundhouse catalog` and `roundhouse cache` against a real control plane and a node that plays a script."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from tests.support.plane import Plane, plane_on
from tests.support.scripted_agent import ScriptedAgent

COMMITS = ("a" * 40, "b" * 40)
FAMILY = {
    "name": "tiny1.5-chat",
    "description": "for tests",
    "variants": [{"size_in_billions": "4", "locations": [{"path": "/models/tiny"}]}],
}


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Runs commands against one control plane."""

    plane: Plane
    agent: ScriptedAgent

    async def run(self, *arguments: str, stdin: str = "") -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "roundhouse.cli", "--address", self.plane.address, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    agent = ScriptedAgent("a")
    agent.cached = [
        agent_pb.CachedModelFacts(
            key=agent_pb.CachedModelKey(repository="acme/tiny", commit=each), references=[name], size_bytes=1 << 30
        )
        for name, each in zip(("main", "v1"), COMMITS, strict=True)
    ]
    async with plane_on(tmp_path / "state") as plane, agent.joined(plane.address):
        yield Shell(plane, agent)


async def test_a_family_is_registered_shown_listed_and_removed(shell: Shell) -> None:
    registered = await shell.run("catalog", "register", "-", stdin=json.dumps(FAMILY))
    assert (registered.status, registered.out) == (0, "tiny1.5-chat is registered with 1 variant\n")
    shown = await shell.run("catalog", "show", "tiny1.5-chat", "--json")
    # What is shown can be registered again as it is.
    again = await shell.run("catalog", "register", "-", stdin=shown.out)
    assert (again.status, again.out) == (0, registered.out)
    listed = await shell.run("catalog", "list")
    assert re.search(r"^tiny1\.5-chat +4 +pytorch +registered: for tests$", listed.out, re.MULTILINE)
    assert "qwen2.5-instruct" in listed.out
    assert (await shell.run("catalog", "remove", "tiny1.5-chat")).out == "tiny1.5-chat is removed\n"
    gone = await shell.run("catalog", "show", "tiny1.5-chat")
    assert (gone.status, 'the catalog has no family "tiny1.5-chat"' in gone.err) == (1, True)


async def test_what_ships_is_shown_with_its_repositories(shell: Shell) -> None:
    shown = await shell.run("catalog", "show", "qwen3")
    assert "Qwen/Qwen3-0.6B\n" in shown.out
    assert "chat hybrid_reasoning tools" in shown.out


async def test_resolving_says_where_files_are_missing(shell: Shell) -> None:
    missing = agent_pb.ModelFacts(state=agent_pb.MODEL_STATE_NOT_FOUND, message="the cache /hub has no such model")
    missing.source.repository.id = "Qwen/Qwen3-0.6B"
    shell.agent.knows(missing)
    resolved = await shell.run("catalog", "resolve", "qwen3", "-s", "0_6", "-q", "none")
    assert "the cache /hub has no such model" in resolved.out
    wrong = await shell.run("catalog", "resolve", "qwen3", "-s", "5")
    assert (wrong.status, "use one of 0.6, 1.7, 4, 8" in wrong.err) == (1, True)


@pytest.mark.parametrize("content", ["{", "[]", '{"nonsense": 1}', '{"name": 5}'])
async def test_a_file_that_holds_no_family_is_refused(shell: Shell, content: str) -> None:
    refused = await shell.run("catalog", "register", "-", stdin=content)
    assert (refused.status, "- holds no family" in refused.err) == (2, True)


async def test_cached_files_are_listed_and_deleted_by_name(shell: Shell) -> None:
    listed = await shell.run("cache", "list")
    assert [line.split()[:4] for line in listed.out.splitlines()[1:]] == [
        ["a", "acme/tiny", "aaaaaaaaaaaa", "main"],
        ["a", "acme/tiny", "bbbbbbbbbbbb", "v1"],
    ]
    several = await shell.run("cache", "delete", "a", "acme/tiny")
    assert (several.status, "name one with --revision" in several.err) == (2, True)
    deleted = await shell.run("cache", "delete", "a", "acme/tiny", "--revision", "v1")
    assert deleted.out == "acme/tiny at bbbbbbbbbbbb is deleted from a: 1 GiB, less what other commits share\n"
    absent = await shell.run("cache", "delete", "a", "acme/tiny", "--revision", "v1")
    assert (absent.status, "a keeps no acme/tiny at v1" in absent.err) == (2, True)
    assert [each.key.commit for each in shell.agent.cached] == [COMMITS[0]]
