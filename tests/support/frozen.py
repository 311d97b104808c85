"""A cluster of which the store and the reports stand still, unless a test changes them: for what decides on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from hypothesis import strategies as st

from controlplane import wire
from controlplane.api.admission import Admission
from controlplane.api.outlook import Outlook
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.model import ReplicaUid
from controlplane.placement.strategies import STRATEGIES
from controlplane.plan import Plan, plan
from controlplane.reconcile.reader import Reader
from controlplane.reconcile.snapshot import Snapshot
from controlplane.store.protocol import Batch, Entry, Listing
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NoCapacity
from tests.support.clock import FakeClock
from tests.support.records import deployment_record
from tests.support.scripted_agent import GIB, ScriptedAgent, simulated_gpu

NAMES = ["ant", "mid", "zoo"]
Call = tuple[str, int, int, int | None, bool] | None  # None: the reconciler looks


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

    async def play(self, calls: Iterable[Call]) -> None:
        """Asks for one thing after the other, and lets the reconciler look where a call is None."""
        for call in calls:
            if call is None:
                await self.reconcile()
            else:
                name, replica_count, need_gib, gpu_count, shares = call
                await self.ask(name, replica_count, need_gib, gpu_count, shares=shares)

    async def require(self, name: str, replica_count: int) -> DeploymentRecord:
        """Returns what a deployment would be with so many replicas; raises NoCapacity if that is refused."""
        record = DeploymentRecord()
        record.CopyFrom(self._records[name])
        record.deployment.replica_count = replica_count
        wanted = wire.wanted(record)
        assert wanted is not None
        if replica_count > self._records[name].deployment.replica_count:
            (await self.admission()).require_places(wanted)
        return record

    async def planned(self) -> tuple[Snapshot, Plan]:
        """Returns what the reconciler would do now."""
        seen = await Reader(self.store, term=1).read()
        nodes = self.registry.nodes()
        found = plan(
            seen.wanted,
            seen.placements,
            nodes,
            orders=seen.orders,
            refused={},
            new_uid=lambda: ReplicaUid(f"uid-{next(self.uids)}"),
            strategies=STRATEGIES,
        )
        return seen, found

    async def reconcile(self) -> None:
        """Does it."""
        seen, found = await self.planned()
        change = seen.change(found, self.registry.nodes())
        for key, value in {} if change is None else change.puts.items():
            self.store.put(key, value)

    async def outlook(self) -> Outlook:
        """Looks ahead on what is stored and reported now."""
        return Outlook(await self.intent(), self.registry, term=1)

    async def admission(self) -> Admission:
        """Refuses what does not fit."""
        intent = await self.intent()
        return Admission(intent, Outlook(intent, self.registry, term=1))

    async def intent(self) -> Intent:
        """Returns copies of what is stored now."""
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
