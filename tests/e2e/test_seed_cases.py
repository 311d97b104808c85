"""The seed's cases with real engines, whose processes and memory are read off the system, not from our reports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from roundhouse.client import Client, deployment
from roundhouse.kit.errors import NoCapacity
from roundhouse.v1.deployment_pb2 import Replica
from tests.support.cluster import Cluster, engine_pids, eventually, node_ready

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(400)]

UTILIZATION = {"idle": (0.0, 0.0, 0.0, 0.0), "noisy": (0.31, 0.33, 0.32, 0.34)}


@pytest_asyncio.fixture(params=UTILIZATION)
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Cluster, Client]]:
    """One node with four simulated GPUs of 8 GiB, in two NVLink islands; a process of others fills most of the last."""
    first: dict[str, Any] = {"gpus": 4, "total_memory_bytes": "8GiB", "nvlink": [[0, 1], [2, 3]]}
    busy = [
        {"at_s": 0, "gpu": index, "set": {"utilization_fraction": share}}
        for index, share in enumerate(UTILIZATION[request.param])
    ]
    others = {"at_s": 0, "gpu": 3, "processes": [{"pid": 1, "name": "train", "used_memory_bytes": "7.9GiB"}]}
    script = tmp_path / "gpus.jsonl"
    script.write_text("\n".join(json.dumps(each) for each in (first, *busy, others)))
    cluster = Cluster(tmp_path / "cluster")
    try:
        await cluster.start_control_plane()
        cluster.start_agent("--simulate-gpus", str(script))
        async with Client(cluster.address) as client:
            await node_ready(client)
            yield cluster, client
    finally:
        await cluster.stop()


async def launched(client: Client, name: str, **placement: Any) -> Sequence[Replica]:
    await client.deployments.create(deployment(name, builtin="demo", **placement))
    return (await client.deployments.wait_ready(name, timeout_s=200)).replicas


async def ended(cluster: Cluster, client: Client, name: str) -> None:
    await client.deployments.delete(name, drain_grace_s=0)
    await client.deployments.wait_gone(name)
    await eventually(lambda: not engine_pids(cluster.folder), "its engines are gone")


def where(replicas: Sequence[Replica]) -> list[tuple[int, ...]]:
    return sorted(tuple(gpu.index for gpu in each.gpus) for each in replicas)


def check_against_the_system(cluster: Cluster, replicas: Sequence[Replica]) -> None:
    """Each replica is one process of the system, told its GPUs, and holds no more than is reserved for it."""
    assert sorted(engine_pids(cluster.folder)) == sorted(each.engine_pid for each in replicas)
    for each in replicas:
        assert 0 < held_bytes(each.engine_pid) <= each.reserved_memory_bytes


def held_bytes(pid: int) -> int:
    """Returns the memory of a process that no file backs, as the kernel counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


async def test_replicas_share_spread_and_avoid_as_the_seed_asks(fleet: tuple[Cluster, Client]) -> None:
    cluster, client = fleet
    on_one = await launched(client, "one", replica_count=3, gpu_count=1)
    check_against_the_system(cluster, on_one)
    assert len(set(where(on_one))) == 1
    await ended(cluster, client, "one")

    on_two = await launched(client, "two", replica_count=3, gpu_count=2)
    check_against_the_system(cluster, on_two)
    assert sorted(where(on_two).count(each) for each in set(where(on_two))) == [1, 2]
    assert (3,) not in where(on_two)  # where others have the memory
    with pytest.raises(NoCapacity, match=r"of 4 replicas have no place: replica .* needs .* MiB"):
        await client.deployments.create(deployment("own", builtin="demo", replica_count=4, allow_shared_gpu=False))
    await ended(cluster, client, "two")

    gang = await launched(client, "gang", replica_count=1, gpus_per_replica=2)
    check_against_the_system(cluster, gang)
    assert where(gang) == [(0, 1)]  # the only whole island with room
    await ended(cluster, client, "gang")
