"""A control plane that has forgotten everything, or remembers what was long ago, stops no engine that runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from roundhouse.client import Client, deployment
from roundhouse.kit.errors import Conflict, NotReady, TooLong, Unreachable
from roundhouse.v1 import deployment_pb2, errors_pb2, node_pb2
from tests.support.cluster import PATIENCE_S, Cluster, cluster, engine_pids, eventually
from tests.support.direct import followed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LOOK_S = 10.0  # in which whoever means to stop or move something has begun
READY = deployment_pb2.REPLICA_STATE_READY


async def create(client: Client, name: str, count: int = 1) -> None:
    await client.deployments.create(deployment(name, builtin="demo", replica_count=count))
    await client.deployments.wait_ready(name, timeout_s=PATIENCE_S)


async def replicas(client: Client, name: str) -> Mapping[str, deployment_pb2.Replica]:
    """Returns the replicas of a deployment by uid."""
    return {each.uid: each for each in (await client.replicas.list(name)).replicas}


async def until_node(client: Client, state: node_pb2.NodeState) -> node_pb2.Node:
    """Watches until the one node is in a state."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Unreachable):  # the watch of a control plane that was killed
                async with client.nodes.watch() as events:
                    async for event in events:
                        if event.changed.state == state:
                            return event.changed


async def until_ready(client: Client, *uids: str) -> None:
    """Watches until exactly these replicas of all deployments are READY."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found: dict[str, tuple[str, bool]] = {}
            with contextlib.suppress(Unreachable):  # the watch of a control plane that was killed
                async with client.replicas.watch() as events:
                    async for event in events:
                        if event.WhichOneof("event") == "changed":
                            found[event.changed.name] = event.changed.uid, event.changed.state == READY
                        found.pop(event.deleted, None)
                        if sorted(found.values()) == sorted((uid, True) for uid in uids):
                            return


def why_unassignable(node: node_pb2.Node) -> str:
    return next(each.reason for each in node.conditions if each.type == "Assignable")


def store(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "roundhouse.cli", "store", *arguments], check=True)


async def restart_control_plane(it: Cluster) -> None:
    it.kill("controlplane")
    await it.start_control_plane()


async def test_an_empty_store_in_place_of_the_old_one_stops_no_engine(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (it, client):
        await create(client, "demo", 2)
        uids, pids = (await replicas(client, "demo")).keys(), sorted(engine_pids(tmp_path))
        state, old = tmp_path / "controlplane", tmp_path / "controlplane-old"
        async with followed([tmp_path / "nodeagent/engines" / uid for uid in uids]):
            it.kill("controlplane")
            state.rename(old)
            await it.start_control_plane()
            assert why_unassignable(await until_node(client, node_pb2.NODE_STATE_FOREIGN)) == "OtherCluster"
            assert list((await client.deployments.list()).deployments) == []
            with pytest.raises(NotReady, match="belongs to cluster"):
                await client.deployments.create(deployment("other", builtin="demo"))
            it.kill("nodeagent")  # the next agent obeys nobody else, either
            it.start_agent()
            assert why_unassignable(await until_node(client, node_pb2.NODE_STATE_FOREIGN)) == "OtherCluster"
            await asyncio.sleep(LOOK_S)
            assert sorted(engine_pids(tmp_path)) == pids
            it.kill("controlplane")
            shutil.rmtree(state)
            old.rename(state)
            await it.start_control_plane()
            await until_ready(client, *uids)
        assert sorted(engine_pids(tmp_path)) == pids
        assert {each.restart_count for each in (await replicas(client, "demo")).values()} == {0}
        assert len(await client.generate("demo", "Once", max_tokens=8, ignore_eos=True).text()) > 0


async def test_a_backup_of_before_serves_what_it_knows_and_stops_nothing_that_it_does_not_know(tmp_path: Path) -> None:
    file, state = tmp_path / "backup.sqlite", tmp_path / "controlplane"
    engines = tmp_path / "nodeagent/engines"
    async with cluster(tmp_path) as (it, client):
        await create(client, "kept")
        await create(client, "gone")
        [known], [deleted] = await replicas(client, "kept"), await replicas(client, "gone")
        store("backup", str(file), "--state-dir", str(state))
        await restart_control_plane(it)  # so that agents obey terms that the backup does not know of
        await restart_control_plane(it)
        await until_ready(client, known, deleted)
        await client.deployments.delete("gone", drain_grace_s=0)
        await client.deployments.wait_gone("gone", timeout_s=PATIENCE_S)
        await client.deployments.scale("kept", 2)
        await create(client, "late")
        [late] = await replicas(client, "late")
        all_kept = (await replicas(client, "kept")).keys()
        await until_ready(client, late, *all_kept)
        pids = set(engine_pids(tmp_path))
        assert len(pids) == 3
        etag = (await client.deployments.get("kept")).etag
        cursor = (await client.deployments.list()).cursor
        async with followed([engines / late, *(engines / uid for uid in all_kept)]):
            # A copy that was put there by hand counts its starts from those of long ago: agents do not obey it.
            it.kill("controlplane")
            for each in state.glob("store.sqlite*"):
                each.unlink()
            shutil.copy(file, state / "store.sqlite")
            await it.start_control_plane()
            assert why_unassignable(await until_node(client, node_pb2.NODE_STATE_FOREIGN)) == "LaterTerm"
            await asyncio.sleep(LOOK_S)
            assert set(engine_pids(tmp_path)) == pids
            # Restored, it is obeyed. What was deleted comes back; what was made since is kept for a while.
            it.kill("controlplane")
            store("restore", str(file), "--state-dir", str(state), "--force")
            await it.start_control_plane()
            await until_ready(client, known, deleted)
            assert (await replicas(client, "kept"))[known].engine_pid in pids
            await asyncio.sleep(LOOK_S)
        assert pids < set(engine_pids(tmp_path))
        assert [each.name for each in (await client.deployments.list()).deployments] == [
            "deployments/gone",
            "deployments/kept",
        ]
        for name in ("kept", "gone"):
            assert len(await client.generate(name, "Once", max_tokens=8, ignore_eos=True).text()) > 0
        with pytest.raises(Conflict) as mismatch:
            await client.deployments.scale("kept", 2, etag=etag)
        assert mismatch.value.own_reason == errors_pb2.ERROR_REASON_ETAG_MISMATCH
        with pytest.raises(TooLong) as compacted:
            async with client.deployments.watch(cursor) as events:
                await anext(aiter(events))
        assert compacted.value.own_reason == errors_pb2.ERROR_REASON_RELIST
        # Another agent keeps them as well, and what is wanted anew finds its place beside them.
        it.kill("nodeagent")
        it.start_agent()
        await client.deployments.scale("kept", 2)
        await client.deployments.wait_ready("kept", timeout_s=PATIENCE_S)
        assert pids < set(engine_pids(tmp_path))
        await eventually(lambda: len(engine_pids(tmp_path)) == 5, "two that are known, one more, and two that are not")
