"""How `up` comes to its demo."""

from __future__ import annotations

import asyncio
import json

import pytest

from roundhouse.cli.up.demo import launch_demo
from roundhouse.cli.up.story import Story
from roundhouse.client import Client
from tests.support.scripted_cluster import scripted_cluster


async def told(
    capsys: pytest.CaptureFixture[str], client: Client, replica_count: int | None
) -> dict[str, dict[str, object]]:
    """Launches the demo and returns what is told, by event."""
    await launch_demo(Story(as_json=True), client, replica_count, None)
    lines = capsys.readouterr().out.splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]  # the cluster, in this process too, logs
    return {event["event"]: event for event in events}


async def test_a_demo_that_is_being_deleted_is_launched_anew_once_it_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with scripted_cluster() as (serving, cluster, _), Client(serving.address) as client:
        first = cluster.deployments["deployments/demo"]
        await client.deployments.delete("demo")
        async with asyncio.timeout(30):
            events = await told(capsys, client, 2)
        assert cluster.deployments["deployments/demo"] is not first
    assert events["warning"]["message"] == "demo is being deleted: it is launched anew once it is gone"
    assert len(events["deployment"]["replicas"]) == 2  # type: ignore[arg-type]


async def test_a_demo_that_is_there_is_kept_and_a_count_that_differs_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with scripted_cluster() as (serving, _, _), Client(serving.address) as client:
        events = await told(capsys, client, 2)
        assert events["warning"]["message"] == (
            "demo is there already with 3 replicas, not 2, and is kept as it is: roundhouse scale demo 2"
        )
        assert len(events["deployment"]["replicas"]) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("replica_count", [3, None], ids=["the same count", "no count"])
async def test_a_demo_that_is_there_as_it_was_asked_for_is_taken_in_silence(
    capsys: pytest.CaptureFixture[str], replica_count: int | None
) -> None:
    async with scripted_cluster() as (serving, _, _), Client(serving.address) as client:
        assert "warning" not in await told(capsys, client, replica_count)
