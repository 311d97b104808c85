"""Replicas of a real deployment are replaced under load, and a change that does not work is taken back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from roundhouse.client import Client, Generation, RolledBack, deployment
from roundhouse.v1 import condition_pb2, generation_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, EnvVar, RolloutPolicy
from tests.support.cluster import Cluster, cluster, engine_pids, eventually, node_ready

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

STREAMS = 32
DEMO = "deployments/demo"
PROMPTS = [f"Tell me a story about number {number}." for number in range(8)]


@dataclass
class Load:
    """So many streams at all times, each to its end, and what they said."""

    client: Client
    stream_count: int = STREAMS
    token_count: int = 48
    outputs: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)
    done_count: int = 0

    @contextlib.asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Runs them for the block; any that fails ends it."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(self.stream_count):
                group.create_task(self._stream_after_stream(PROMPTS[number % len(PROMPTS)], stop))
            await eventually(lambda: self.done_count >= self.stream_count, "all streams have ended once")
            try:
                yield
            finally:
                stop.set()

    async def _stream_after_stream(self, prompt: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            ids: list[int] = []
            async with self.client.generate(
                "demo", prompt, max_tokens=self.token_count, ignore_eos=True, temperature=0.0
            ) as stream:
                async for delta in stream:
                    assert delta.first_position == len(ids)
                    ids.extend(delta.token_ids)
            assert stream.finished is not None
            assert stream.finished.reason == generation_pb2.FINISH_REASON_LENGTH
            self.outputs.setdefault(prompt, set()).add(tuple(ids))
            self.done_count += 1


def rolled_out(found: Deployment) -> condition_pb2.Condition:
    return next(each for each in found.conditions if each.type == "RolledOut")


async def until_told(client: Client, reasons: set[str]) -> None:
    """Waits until there are events of the deployment with all these reasons."""
    missing = set(reasons)
    async with client.events.watch(DEMO) as events, asyncio.timeout(60):
        async for each in events:
            missing.discard(each.changed.reason)
            if not missing:
                return
    raise AssertionError("the watch ended")


async def test_a_rolling_update_under_load_loses_no_request(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client):
        wanted = deployment("demo", builtin="demo", replica_count=2, dtype="float32")
        await client.deployments.create(wanted)
        await client.deployments.wait_ready("demo", timeout_s=120)
        before = set(engine_pids(tmp_path))
        load = Load(client)
        async with load.going():
            change = Deployment(name=DEMO, env=[EnvVar(name="A_VERSION", value="2")])
            stored = await client.deployments.update(change, ["env"])
            ready = await client.deployments.wait_ready("demo", timeout_s=200, wanted=stored)
            done_count = load.done_count
            await eventually(lambda: load.done_count >= done_count + STREAMS, "the new replicas serve")
        assert ready.deployment.updated_replica_count == 2
        assert rolled_out(ready.deployment).status == condition_pb2.CONDITION_STATUS_TRUE
        assert {each.deployment_generation for each in ready.replicas} == {2}
        assert not before & set(engine_pids(tmp_path))
        assert {len(outputs) for outputs in load.outputs.values()} == {1}
        await until_told(client, {"Updated", "RolledOut"})


async def test_a_version_that_does_not_load_is_taken_back_under_load_and_says_why(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=2, dtype="float32"))
        await client.deployments.wait_ready("demo", timeout_s=120)
        before = set(engine_pids(tmp_path))
        load = Load(client, stream_count=4)  # three starts of an engine are to have their share of two cores
        async with load.going():
            broken = Deployment(name=DEMO, engine_options=EngineOptions(attention="triton"))  # there is no GPU
            stored = await client.deployments.update(broken, ["engine_options.attention"])
            with pytest.raises(RolledBack) as caught:
                await client.deployments.wait_ready("demo", timeout_s=300, wanted=stored)
            assert "generation 2 was taken back to 1" in caught.value.message
            assert "attention" in caught.value.message
        after = await client.deployments.get("demo")
        assert (after.generation, after.engine_options.attention, after.ready_replica_count) == (3, "", 2)
        assert rolled_out(after).reason == "RolledBack"
        await eventually(lambda: set(engine_pids(tmp_path)) == before, "only the engines of before are left")
        await until_told(client, {"RolledBack"})
        assert it.processes["controlplane"].poll() is None


async def test_a_rollout_goes_on_through_the_deaths_of_control_plane_and_agent(tmp_path: Path) -> None:
    it = Cluster(tmp_path)
    try:
        await it.start_control_plane()
        it.start_agent()
        async with Client(it.address) as client:
            await node_ready(client)
            await client.deployments.create(deployment("demo", builtin="demo", replica_count=2))
            await client.deployments.wait_ready("demo", timeout_s=120)
            before = set(engine_pids(tmp_path))
            change = Deployment(
                name=DEMO, engine_options=EngineOptions(batch_size=3), rollout=RolloutPolicy(max_surge=1)
            )
            stored = await client.deployments.update(change)
            it.kill("controlplane")
            it.kill("nodeagent")
            await it.start_control_plane()
            it.start_agent()
            ready = await client.deployments.wait_ready("demo", timeout_s=200, wanted=stored)
            assert {each.deployment_generation for each in ready.replicas} == {2}
            await eventually(lambda: not before & set(engine_pids(tmp_path)), "the engines of before are gone")
            assert len(engine_pids(tmp_path)) == 2
    finally:
        await it.stop()


async def test_fewer_replicas_are_the_busier_ones_and_their_streams_go_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=2))
        await client.deployments.wait_ready("demo", timeout_s=120)
        async with client.generate("demo", "Once upon a time", max_tokens=1900, n=16, ignore_eos=True) as stream:
            reading = asyncio.create_task(positions_of(stream))
            busy = await until_one_is_busy(client)
            await client.deployments.scale("demo", 1)
            left = await client.deployments.wait_ready("demo", timeout_s=60)
            assert [each.uid for each in left.replicas] == [busy]
            assert await reading == dict.fromkeys(range(16), 1900)


async def positions_of(stream: Generation) -> dict[int, int]:
    """Reads to the end; returns how many tokens each choice has."""
    counts: dict[int, int] = {}
    async for delta in stream:
        counts[delta.choice] = counts.get(delta.choice, 0) + len(delta.token_ids)
    return counts


async def until_one_is_busy(client: Client) -> str:
    async with client.replicas.watch("demo") as events, asyncio.timeout(60):
        async for event in events:
            if event.changed.load.running_count:
                return event.changed.uid
    raise AssertionError("the watch ended")
