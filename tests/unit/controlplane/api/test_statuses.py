"""Statuses: one deployment that cannot be told hides no other, and ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from controlplane import wire
from controlplane.api.statuses import Nothing, Outcome, Status, Statuses
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.model import GpuUuid, NodeId, Placement, ReplicaUid
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.latest import Latest
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import Deployment
from tests.support.clock import FakeClock

PLACED = Placement("a", "uid-of-a", 0, ReplicaUid("r"), 1, NodeId("one"), (GpuUuid("g"),), 5)


def observed(**generations: int) -> Outcome:
    return Nothing({}, {f"uid-of-{deployment}": each for deployment, each in generations.items()})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "store") as it:
        puts = {wire.placement_key(PLACED): wire.placement_record(PLACED).SerializeToString()}
        for each in "ab":
            wanted = Deployment(name=f"deployments/{each}", uid=f"uid-of-{each}", generation=1, replica_count=1)
            puts[wire.deployment_key(each)] = DeploymentRecord(deployment=wanted).SerializeToString()
        await it.commit([], puts)
        yield it


@contextlib.asynccontextmanager
async def running(store: SqliteStore, outcomes: Latest[Outcome]) -> AsyncIterator[Statuses]:
    intent, clock = Intent(store), FakeClock()
    async with intent.kept(), asyncio.TaskGroup() as group:
        statuses = Statuses(intent, Registry(clock, "cluster"), epoch=store.epoch, clock=clock)
        following = group.create_task(statuses.run(outcomes.watch))
        yield statuses
        following.cancel()


async def until(statuses: Statuses, deployment: str, holds: Callable[[Status], bool]) -> Status:
    """Waits until something holds of a status."""
    changed = asyncio.Event()
    with statuses.changes.to(lambda _: changed.set()):
        async with asyncio.timeout(20):
            while (status := statuses.get(deployment)) is None or not holds(status):
                changed.clear()
                await changed.wait()
    return status


def is_broken(status: Status) -> bool:
    return [each.reason for each in status.deployment.conditions] == ["Fault"]


async def test_a_deployment_that_cannot_be_told_is_unknown_until_it_can_and_the_others_are_told(
    store: SqliteStore,
) -> None:
    outcomes = Latest(observed(a=1, b=1))
    async with running(store, outcomes) as statuses:
        await until(statuses, "a", lambda status: status.deployment.observed_generation == 1)
        outcomes.set(observed(a=2**70, b=2))  # the first fits in no field
        broken = await until(statuses, "a", is_broken)
        assert broken.deployment.state == deployment_pb2.DEPLOYMENT_STATE_UNKNOWN
        assert broken.deployment.etag
        assert [(each.uid, each.state) for each in broken.replicas] == [("r", deployment_pb2.REPLICA_STATE_UNKNOWN)]
        await until(statuses, "b", lambda status: status.deployment.observed_generation == 2)
        outcomes.set(observed(a=3, b=2))
        await until(statuses, "a", lambda status: status.deployment.observed_generation == 3)
