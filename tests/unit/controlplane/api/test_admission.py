"""What is acknowledged is placed: admission and the reconciler decide alike on the same facts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controlplane import wire
from controlplane.api.admission import MAX_SPECS_BYTES, Admission
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.model import ReplicaUid
from controlplane.reconcile.plan import Plan, plan
from controlplane.reconcile.snapshot import Snapshot, read_snapshot
from controlplane.store.protocol import Batch, Entry, Listing
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NoCapacity
from roundhouse.v1.deployment_pb2 import EngineOptions, ModelSource
from tests.support.clock import FakeClock
from tests.support.plane import wanted
from tests.support.records import deployment_record
from tests.support.scripted_agent import GIB, ScriptedAgent, simulated_gpu

NAMES = ["ant", "mid", "zoo"]


class Memory:
    """A store in memory, as far as decisions read it."""

    def __init__(self) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}

    async def list(self, prefix: str) -> Listing:
        under = (self.entries[key] for key in sorted(self.entries) if key.startswith(prefix))
        return Listing(tuple(under), self.revision)

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        raise AssertionError("nobody follows it here")

    def put(self, key: str, value: bytes) -> None:
        """Writes one value."""
        self.revision += 1
        before = self.entries.get(key)
        created = self.revision if before is None else before.create_revision
        self.entries[key] = Entry(key, value, created, self.revision)


@dataclass
class Cluster:
    """What is stored and reported, changed one call after the other while the reconciler looks now and then."""

    gpus: Sequence[Sequence[tuple[int, float]]]  # of each node: GiB and utilization
    store: Memory = field(default_factory=Memory)
    registry: Registry = field(default_factory=lambda: Registry(FakeClock(), "cluster"))
    uids: count[int] = field(default_factory=count)
    _records: dict[str, DeploymentRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, gpus in zip("abc", self.gpus, strict=False):
            agent = ScriptedAgent(name, gpu_count=0)
            for index, (gib, busy) in enumerate(gpus):
                gpu = simulated_gpu(name, index, gib * GIB)
                gpu.utilization_fraction = busy
                agent.gpus.append(gpu)
            with self.registry.session(agent.message()) as session:
                session.record(agent.message())

    async def ask(self, name: str, replica_count: int, need_gib: int, gpu_count: int | None, *, shares: bool) -> bool:
        """Creates a deployment, or scales it; tells whether that is acknowledged."""
        if wire.deployment_key(name) not in self.store.entries:
            record = deployment_record(name, 0, need_gib=need_gib)
            record.deployment.placement.allow_shared_gpu = shares
            if gpu_count is not None and gpu_count <= replica_count:
                record.deployment.placement.gpu_count = gpu_count
            self._records[name] = record
        try:
            record = await self.require(name, replica_count)
        except NoCapacity:
            return False
        self.store.put(wire.deployment_key(name), record.SerializeToString())
        self._records[name] = record
        return True

    async def require(self, name: str, replica_count: int) -> DeploymentRecord:
        """Returns what a deployment would be with so many replicas; raises NoCapacity if that is refused."""
        record = DeploymentRecord()
        record.CopyFrom(self._records[name])
        record.deployment.replica_count = replica_count
        wanted = wire.wanted(record)
        assert wanted is not None
        if replica_count > self._records[name].deployment.replica_count:
            Admission(await self.intent(), self.registry).require_places(wanted)
        return record

    async def planned(self) -> tuple[Snapshot, Plan]:
        """Returns what the reconciler would do now."""
        seen = await read_snapshot(self.store, term=1)
        nodes = self.registry.nodes()
        found = plan(
            seen.wanted,
            seen.placements,
            nodes,
            orders=seen.orders,
            refused={},
            new_uid=lambda: ReplicaUid(f"uid-{next(self.uids)}"),
        )
        return seen, found

    async def reconcile(self) -> None:
        """Does it."""
        seen, found = await self.planned()
        change = seen.change(found, self.registry.nodes())
        for key, value in {} if change is None else change.puts.items():
            self.store.put(key, value)

    async def intent(self) -> Intent:
        intent = Intent(self.store)
        for table in (intent.deployments, intent.placements, intent.assignments):
            await table.load()
        return intent


# Few sizes, so that what fits and what does not are close to one another.
FLEETS = st.lists(
    st.lists(st.tuples(st.sampled_from([3, 5, 8]), st.sampled_from([0.0, 0.3, 0.9])), min_size=1, max_size=2),
    min_size=1,
    max_size=3,
)
Call = tuple[str, int, int, int | None, bool] | None  # None: the reconciler looks
CALLS: st.SearchStrategy[list[Call]] = st.lists(
    st.none()
    | st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 3),
        st.sampled_from([1, 2, 3, 5, 8]),
        st.sampled_from([None, None, None, 1, 2]),
        st.booleans(),
    ),
    min_size=2,
    max_size=8,
)


@example([[(24, 0.0), (10, 0.3)]], [("zoo", 1, 20, None, True), ("ant", 1, 5, None, True)])
@example(
    [[(8, 0.0)], [(8, 0.0), (3, 0.9)]],
    [("ant", 2, 5, None, False), ("zoo", 2, 1, None, True), ("ant", 1, 5, None, False)],
)
@settings(max_examples=300, deadline=None)
@given(FLEETS, CALLS)
def test_whatever_is_acknowledged_is_placed(gpus: Sequence[Sequence[tuple[int, float]]], calls: Sequence[Call]) -> None:
    async def play() -> None:
        cluster = Cluster(gpus)
        for call in calls:
            if call is None:
                await cluster.reconcile()
            else:
                name, replica_count, need_gib, gpu_count, shares = call
                await cluster.ask(name, replica_count, need_gib, gpu_count, shares=shares)
        _, found = await cluster.planned()
        assert [each.reason for each in found.unplaced] == []

    asyncio.run(play())


async def test_what_was_acknowledged_first_keeps_its_place_whatever_the_names() -> None:
    cluster = Cluster([[(24, 0.0), (10, 0.3)]])
    assert await cluster.ask("zoo", 1, 20, None, shares=True)
    assert await cluster.ask("ant", 1, 5, None, shares=True)
    _, found = await cluster.planned()
    assert {each.deployment: each.gpus for each in found.placements} == {"zoo": ("SIM-a-0",), "ant": ("SIM-a-1",)}


async def test_growth_that_would_cost_another_its_place_before_it_is_placed_is_refused() -> None:
    cluster = Cluster([[(24, 0.0), (10, 0.3)]])
    assert await cluster.ask("zoo", 1, 4, None, shares=True)
    assert await cluster.ask("ant", 1, 20, None, shares=True)
    # zoo was made first, so a second one of it is placed before ant, on the idle GPU.
    with pytest.raises(NoCapacity, match='"ant-0" waits to be placed, and would have no place'):
        await cluster.require("zoo", 2)
    await cluster.reconcile()
    await cluster.require("zoo", 2)


async def test_placed_replicas_stand_in_the_way_of_no_change() -> None:
    cluster = Cluster([[(24, 0.0), (10, 0.3)]])
    assert await cluster.ask("zoo", 1, 20, None, shares=True)
    assert await cluster.ask("ant", 1, 5, None, shares=True)
    await cluster.reconcile()
    assert await cluster.ask("zoo", 0, 20, None, shares=True)
    assert await cluster.ask("ant", 0, 5, None, shares=True)


async def test_specs_are_refused_by_what_all_of_them_take() -> None:
    cluster = Cluster([[(24, 0.0)]])
    large = deployment_record("large")
    large.deployment.model.CopyFrom(ModelSource(path="/" + "p" * (MAX_SPECS_BYTES - 300)))
    cluster.store.put(wire.deployment_key("large"), large.SerializeToString())
    admission = Admission(await cluster.intent(), cluster.registry)
    admission.require_specs(wanted("a"))
    options = EngineOptions(dtype="d" * 300)
    with pytest.raises(NoCapacity, match="768 KiB"):
        admission.require_specs(wanted("a", engine_options=options))
