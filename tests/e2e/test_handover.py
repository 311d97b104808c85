"""Engines that have to stop hand their requests over: in a rolling update, and when a node is drained."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from roundhouse.client.requests import Failover, GenerationOptions
from roundhouse.kit.errors import RoundhouseError
from roundhouse.kit.times import to_duration
from roundhouse.v1 import errors_pb2, generation_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, EnvVar, RolloutPolicy
from tests.support.cluster import cluster
from tests.support.undisturbed import PROMPT, Came, read, reading

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STREAMS = 4
LONG, CHOICES = 1900, 8  # with four streams as many sequences as an engine runs at a time: none waits at the gateway
SAME: GenerationOptions = {"max_tokens": LONG, "n": CHOICES, "ignore_eos": True, "temperature": 1.0, "seed": 7}
DEMO = "deployments/demo"
IN_PLACE = RolloutPolicy(drain_grace=to_duration(0.5), max_surge=0, max_unavailable=1)
ROLLOUT = ("rollout.drain_grace", "rollout.max_surge", "rollout.max_unavailable")
PATIENCE_S = 150.0


async def begun(client: Client, failover: Failover | None = None) -> tuple[Came, asyncio.Task[Came]]:
    """Starts a long request; returns once it gives tokens."""
    came, has_begun = Came(), asyncio.Event()

    async def run() -> Came:
        options: GenerationOptions = {**SAME, "failover": failover}
        generation = client.generate("demo", PROMPT, **options)
        try:
            async for each in reading(generation, came):
                if each.told_count:
                    has_begun.set()
        finally:
            has_begun.set()
        return came

    task = asyncio.create_task(run())
    await has_begun.wait()
    return came, task


async def many_begun(client: Client, failover: Failover | None = None) -> list[asyncio.Task[Came]]:
    return [task for _, task in await asyncio.gather(*(begun(client, failover) for _ in range(STREAMS)))]


async def test_a_rolling_update_hands_running_streams_over_and_no_token_differs(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=2))
        await client.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
        whole = await read(client.generate("demo", PROMPT, **SAME))
        tasks = await many_begun(client)
        change = Deployment(name=DEMO, env=[EnvVar(name="A_VERSION", value="2")], rollout=IN_PLACE)
        await client.deployments.update(change, ["env", *ROLLOUT])
        came = await asyncio.gather(*tasks)
    assert any(each.resumed for each in came)
    for each in came:
        assert {resumed.reason for resumed in each.resumed} <= {generation_pb2.RESUME_REASON_DRAINED}
        assert each.exactness == {generation_pb2.EXACTNESS_EXACT}
        assert each.output == whole.output


@pytest.mark.parametrize("failover", ["approximate", "exact"])
async def test_an_update_to_other_numbers_hands_over_only_who_does_not_mind(tmp_path: Path, failover: Failover) -> None:
    async with cluster(tmp_path) as (_, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=1, dtype="float32"))
        await client.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
        tasks = await many_begun(client, failover)
        change = Deployment(name=DEMO, engine_options=EngineOptions(dtype="bfloat16"), rollout=IN_PLACE)
        await client.deployments.update(change, ["engine_options.dtype", *ROLLOUT])
        came = await asyncio.gather(*tasks, return_exceptions=True)
    for each in came:
        if failover == "approximate":
            assert isinstance(each, Came), each
            assert [resumed.exactness for resumed in each.resumed] == [generation_pb2.EXACTNESS_APPROXIMATE]
            assert each.exactness == {generation_pb2.EXACTNESS_APPROXIMATE}
            assert each.told_count == LONG * CHOICES
        else:
            assert isinstance(each, RoundhouseError), each
            assert each.own_reason == errors_pb2.ERROR_REASON_DRAINING
            assert "no other one goes on" in each.message


async def test_a_node_that_is_drained_hands_its_streams_over(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (it, client):
        it.start_agent("--simulate-gpus", "1x24GiB", node="b")
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=1))
        ready = await client.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
        node = ready.replicas[0].node
        tasks = await many_begun(client)
        await client.nodes.drain(node, drain_grace_s=0.5)
        came = await asyncio.gather(*tasks)
    for each in came:
        assert [resumed.reason for resumed in each.resumed] == [generation_pb2.RESUME_REASON_DRAINED]
        assert each.exactness == {generation_pb2.EXACTNESS_EXACT}
        assert each.told_count == LONG * CHOICES
