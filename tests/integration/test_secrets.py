"""`roundhouse launch --secret-env` against a real control plane."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import roundhouse
from tests.support.plane import plane_on
from tests.support.scripted_agent import ScriptedAgent


async def test_secrets_come_from_files_and_from_the_variables_here_and_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from a file\n")
    monkeypatch.setenv("HERE", "from this shell")
    async with plane_on(tmp_path / "state") as plane, ScriptedAgent("a").joined(plane.address) as agent:
        flags = ("--secret-env", f"A={tmp_path / 'token'}", "--secret-env", "HERE", "--no-wait", "--json")
        ended = await roundhouse(plane.address, "launch", "demo", *flags)
        assert (ended.status, ended.err) == (0, "")
        shown = json.loads(ended.out)["env"]
        assert shown == [{"name": "A", "secret_version": "1"}, {"name": "HERE", "secret_version": "1"}]
        [engine] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        assert {each.name: each.value for each in engine.spec.env} == {"A": "from a file", "HERE": "from this shell"}
