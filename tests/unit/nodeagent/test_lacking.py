"""A node that lacks files of a model refuses the replica whole, and starts it once they are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.v1.deployment_pb2 import HubRepository, ModelSource
from tests.support.hub_cache import cache_model
from tests.support.supervision import READY, STOPPED, Node, wanted

pytestmark = pytest.mark.slow

REPOSITORY = "acme/tiny"


def of(source: ModelSource, *, stop_grace_s: float | None = None) -> wire.EngineAssignment:
    replica = wanted(stop_grace_s=stop_grace_s)
    replica.spec.model.CopyFrom(source)
    return replica


async def refusal(node: Node) -> wire.Refusal:
    await node.until_true(node.supervisor.refusals)
    [refused] = node.supervisor.refusals()
    assert refused.is_node_wide
    return refused


async def test_a_directory_that_is_not_there_is_refused_and_started_from_once_it_is(node: Node, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    await node.assign(of(ModelSource(path=str(directory))))
    refused = await refusal(node)
    assert refused.message == f"there is no directory {directory}"
    assert node.report() is None, "nothing was started, and nothing has failed"
    directory.mkdir()
    await node.until_state(READY)
    assert node.supervisor.refusals() == []


async def test_a_repository_that_is_not_whole_in_the_cache_is_refused(
    idle: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    cache_model(tmp_path / "hub", REPOSITORY, files)
    async with idle.supervised():
        await idle.assign(of(ModelSource(repository=HubRepository(id=REPOSITORY))))
        assert "it lacks tokenizer.json, model.safetensors" in (await refusal(idle)).message
        await idle.assign(of(ModelSource(repository=HubRepository(id="acme/other"))))
        await idle.until_true(lambda: "has no models--acme--other" in idle.supervisor.refusals()[0].message)


async def test_a_replica_that_is_refused_can_be_given_up(node: Node, tmp_path: Path) -> None:
    source = ModelSource(path=str(tmp_path / "model"))
    await node.assign(of(source))
    await refusal(node)
    await node.assign(of(source, stop_grace_s=0.0))
    assert node.report() is None
    await node.assign()
    assert node.supervisor.refusals() == []


async def test_an_engine_that_has_run_here_fails_when_its_files_are_gone(node: Node, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    source = ModelSource(path=str(directory))
    await node.assign(of(source))
    await node.until_state(READY)
    await node.assign(of(source, stop_grace_s=0.0))
    await node.until_state(STOPPED)
    directory.rmdir()
    await node.assign(of(source))
    report = await node.until(lambda each: "cannot be started" in each.message)
    assert f"there is no directory {directory}" in report.message
