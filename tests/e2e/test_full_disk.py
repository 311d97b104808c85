"""Where the disk is full, what runs goes on, what is asked for is refused or waits, and nothing half made stays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from roundhouse.kit.errors import Unreachable
from roundhouse.v1 import deployment_pb2, errors_pb2
from tests.support.cluster import PATIENCE_S, answering, cluster, engine_pids, eventually, node_ready
from tests.support.direct import followed
from tests.support.full_disk import CannotMount, fill, free, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FAILED, READY = deployment_pb2.REPLICA_STATE_FAILED, deployment_pb2.REPLICA_STATE_READY


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which control plane and agent have small disks of their own."""
    with contextlib.ExitStack() as mounted:
        for name in ("controlplane", "nodeagent"):
            try:
                mounted.enter_context(small_disk(tmp_path / name, "16m"))
            except CannotMount as error:
                pytest.skip(f"no file system can be mounted here: {error}")
        yield tmp_path


async def replicas(client: Client) -> AsyncGenerator[dict[str, deployment_pb2.Replica], None]:
    """Yields the replicas of demo by name, at first and whenever one changes."""
    found: dict[str, deployment_pb2.Replica] = {}
    async with client.replicas.watch("demo") as events, asyncio.timeout(PATIENCE_S):
        async for event in events:
            if event.WhichOneof("event") == "changed":
                found[event.changed.name] = event.changed
            found.pop(event.deleted, None)
            yield found


async def until_states(client: Client, *states: deployment_pb2.ReplicaState) -> Sequence[deployment_pb2.Replica]:
    async with contextlib.aclosing(replicas(client)) as changing:
        async for found in changing:
            if sorted(each.state for each in found.values()) == sorted(states):
                return list(found.values())
    raise AssertionError("the watch ended")


async def create_demo(client: Client) -> deployment_pb2.Replica:
    await client.deployments.create(deployment("demo", builtin="demo"))
    [replica] = await until_states(client, READY)
    return replica


async def test_a_control_plane_without_room_refuses_changes_and_serves_what_there_is(folder: Path) -> None:
    async with cluster(folder) as (it, client):
        replica = await create_demo(client)
        fill(folder / "controlplane")
        wanted = deployment("late", builtin="demo")
        with pytest.raises(Unreachable, match="disk of the store is full, and nothing was written: make room") as full:
            await client.deployments.create(wanted, request_id="once")
        assert full.value.own_reason == errors_pb2.ERROR_REASON_STORE_UNKNOWN
        assert [each.name for each in (await client.deployments.list()).deployments] == ["deployments/demo"]
        assert len(await client.generate("demo", "Once", max_tokens=8, ignore_eos=True).text()) > 0
        it.kill("controlplane")  # whatever is half written stays so
        free(folder / "controlplane")
        await it.start_control_plane()
        await answering(client)
        await node_ready(client)
        await client.deployments.create(wanted, request_id="once")
        await client.deployments.wait_ready("late", timeout_s=PATIENCE_S)
        [same] = await until_states(client, READY)
        assert (same.engine_pid, same.restart_count) == (replica.engine_pid, 0)


async def test_a_node_without_room_keeps_its_engines_and_starts_new_ones_once_there_is_some(folder: Path) -> None:
    async with cluster(folder) as (it, client):
        replica = await create_demo(client)
        engines = folder / "nodeagent/engines"
        async with followed([engines / replica.uid]):
            fill(folder / "nodeagent")
            await client.deployments.scale("demo", 2)
            failed = next(each for each in await until_states(client, READY, FAILED) if each.state == FAILED)
            assert "the engine cannot be started: the disk of" in failed.message
            assert failed.message.endswith("is full: make room on it")
            it.kill("nodeagent")
            it.start_agent()
            await until_states(client, READY, FAILED)
            assert engine_pids(folder) == [replica.engine_pid]
            await eventually(lambda: list(engines.glob(".*")) == [], "nothing half made is there between two attempts")
            free(folder / "nodeagent")
            both = {each.uid: each for each in await until_states(client, READY, READY)}
        assert (both[replica.uid].engine_pid, both[replica.uid].restart_count) == (replica.engine_pid, 0)
        await client.deployments.delete("demo", drain_grace_s=0)
        await eventually(lambda: not engine_pids(folder), "the engines are gone")
