"""Two real nodes: one is lost and comes back, one is drained under load, and the control plane stands still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from roundhouse.v1 import deployment_pb2, node_pb2
from tests.support.cluster import Cluster, engine_pids, eventually
from tests.support.direct import followed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LEASE_S = 4.0
STALL_S = 60.0
PATIENCE_S = 90.0
READY = deployment_pb2.REPLICA_STATE_READY
Replicas = dict[str, deployment_pb2.Replica]


@contextlib.asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[tuple[Cluster, Client]]:
    """Runs a control plane and the nodes a and b for the block."""
    it = Cluster(folder)
    try:
        await it.start_control_plane("--node-lease", str(LEASE_S))
        for name in "ab":
            it.start_agent(node=name)
        async with Client(it.address) as client:
            for name in "ab":
                await until_node(client, name, lambda node: node.state == node_pb2.NODE_STATE_READY)
            yield it, client
    finally:
        await it.stop()


async def until_node(client: Client, name: str, holds: Callable[[node_pb2.Node], bool]) -> node_pb2.Node:
    """Watches until something holds of a node that joins sooner or later."""
    async with client.nodes.watch() as events, asyncio.timeout(PATIENCE_S):
        async for event in events:
            if event.changed.name == f"nodes/{name}" and holds(event.changed):
                return event.changed
    raise AssertionError("the watch ended")


async def until_replicas(client: Client, holds: Callable[[Replicas], bool]) -> Replicas:
    """Watches until something holds of all replicas by name."""
    seen: Replicas = {}
    async with client.replicas.watch("demo") as events, asyncio.timeout(PATIENCE_S):
        async for event in events:
            if event.WhichOneof("event") == "changed":
                seen[event.changed.name] = event.changed
            seen.pop(event.deleted, None)
            if holds(seen):
                return seen
    raise AssertionError("the watch ended")


def all_on(*nodes: str) -> Callable[[Replicas], bool]:
    """Tells whether there is one READY replica on each of these nodes."""
    wanted = sorted((READY, f"nodes/{each}") for each in nodes)
    return lambda found: sorted((each.state, each.node) for each in found.values()) == wanted


async def demo_on_a(client: Client) -> None:
    """Serves the demo model with one replica, on node a."""
    await client.nodes.cordon("b")
    await client.deployments.create(deployment("demo", builtin="demo"))
    await until_replicas(client, all_on("a"))
    await client.nodes.uncordon("b")


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for each in pids:
        os.kill(each, number)


async def tokens_of_a_story(client: Client, count: int) -> int:
    """Returns how many tokens came; each position once and in order, or it fails."""
    seen = 0
    async with client.generate("demo", "Once upon a time", max_tokens=count, ignore_eos=True) as stream:
        async for delta in stream:
            assert delta.first_position == seen
            seen += len(delta.token_ids)
    return seen


async def test_a_node_that_stands_still_is_replaced_and_gives_up_its_extra_engine_when_it_goes_on(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=2, strategy="spread"))
        await until_replicas(client, all_on("a", "b"))
        on_a, on_b = tmp_path / "nodeagent-a", tmp_path / "nodeagent-b"
        old, kept = engine_pids(on_a), engine_pids(on_b)
        assert (len(old), len(kept)) == (1, 1)
        frozen = [it.processes["nodeagent-a"].pid, *old]
        signal_all(frozen, signal.SIGSTOP)
        begin_s = time.monotonic()
        replaced = await until_replicas(client, all_on("b", "b"))
        print(f"served from the other node after {time.monotonic() - begin_s:.1f} s of which {LEASE_S} s are lease")
        assert sorted(each.placement_epoch for each in replaced.values()) == [1, 2]
        assert await tokens_of_a_story(client, 8) == 8
        signal_all(frozen, signal.SIGCONT)
        await until_node(client, "a", lambda node: node.state == node_pb2.NODE_STATE_READY and not node.replicas)
        await eventually(lambda: not engine_pids(on_a), "the extra engine is gone")
        now = engine_pids(on_b)
        assert len(now) == 2
        assert set(kept) <= set(now)
        assert all_on("b", "b")({each.name: each for each in (await client.replicas.list("demo")).replicas})


async def test_a_stream_on_a_lost_node_goes_on_to_its_end_and_the_next_agent_ends_the_engine(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (it, client):
        await demo_on_a(client)
        async with client.generate("demo", "Once upon a time", max_tokens=1800, ignore_eos=True) as stream:
            deltas = stream.__aiter__()
            await anext(deltas)
            it.kill("nodeagent-a")
            await until_node(client, "a", lambda node: node.state == node_pb2.NODE_STATE_LOST)
            last = 0
            async for delta in deltas:
                last = delta.first_position + len(delta.token_ids)
            assert last == 1800
        await until_replicas(client, all_on("b"))
        assert await tokens_of_a_story(client, 8) == 8
        it.start_agent(node="a")
        await until_node(client, "a", lambda node: node.state == node_pb2.NODE_STATE_READY and not node.replicas)
        await eventually(lambda: not engine_pids(tmp_path / "nodeagent-a"), "the extra engine is gone")
        assert len(engine_pids(tmp_path / "nodeagent-b")) == 1


async def test_draining_a_node_under_eight_streams_loses_none(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (_, client):
        await demo_on_a(client)
        is_over = asyncio.Event()

        async def ask() -> list[int]:
            counts = [await tokens_of_a_story(client, 120)]
            while not is_over.is_set():
                counts.append(await tokens_of_a_story(client, 120))
            return counts

        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(ask()) for _ in range(8)]
            await client.nodes.drain("a", drain_grace_s=120)
            drained = await client.nodes.wait_drained("a", PATIENCE_S)
            is_over.set()
        counts = [count for each in asking for count in each.result()]
        assert set(counts) == {120}
        assert (list(drained.replicas), engine_pids(tmp_path / "nodeagent-a")) == ([], [])
        [moved] = (await until_replicas(client, all_on("b"))).values()
        assert moved.placement_epoch == 2
        print(f"{len(counts)} streams, none lost")


async def test_a_control_plane_that_stood_still_for_a_minute_moves_nothing(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=2, strategy="spread"))
        before = await until_replicas(client, all_on("a", "b"))
        engines = sorted(engine_pids(tmp_path))
        control_plane = it.processes["controlplane"].pid
        async with followed([bundle for each in "ab" for bundle in (tmp_path / f"nodeagent-{each}/engines").iterdir()]):
            os.kill(control_plane, signal.SIGSTOP)
            await asyncio.sleep(STALL_S)
            os.kill(control_plane, signal.SIGCONT)
            await asyncio.sleep(2 * LEASE_S)  # in which what it would move, it would have moved
        after = await until_replicas(client, all_on("a", "b"))
        assert {each.restart_count for each in after.values()} == {0}
        assert {each.uid for each in after.values()} == {each.uid for each in before.values()}
        assert {each.placement_epoch for each in after.values()} == {1}
        assert sorted(engine_pids(tmp_path)) == engines
