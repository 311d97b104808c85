"""The loop, over a real store and a fleet that a test decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from controlplane import wire
from controlplane.model import Attendance, Node, NodeId, Placement
from controlplane.placement.fit import MAX_NODE_REPLICAS
from controlplane.plan import MOST_MOVES
from controlplane.reconcile.loop import Reconciler
from controlplane.store.protocol import Compare, Listing, Store
from controlplane.store.sqlite import open_sqlite
from nodeagent.model import Order
from nodeagent.plan import refusal
from roundhouse.internal.v1.agent_service_pb2 import DESIRED_STATE_STOPPED
from roundhouse.internal.v1.store_pb2 import AssignmentRecord, DeploymentRecord, NodeRecord, PlacementRecord
from roundhouse.kit.errors import Conflict, InvalidArgument, Unreachable
from tests.support.clock import FakeClock
from tests.support.fleets import GIB, engine, gpu, node, where
from tests.support.records import deployment_record

TERM = 3


class Fleet:
    """A registry that knows what a test says."""

    def __init__(self, *nodes: Node) -> None:
        self.known = {each.id: each for each in nodes}
        self.error: Exception | None = None
        self.was_asked = asyncio.Event()
        self.attends = Attendance(lease_s=7.0, silent_s={}, running_s=0.0, watched_s=0.0)

    def nodes(self) -> Mapping[NodeId, Node]:
        self.was_asked.set()
        if self.error is not None:
            raise self.error
        return self.known

    def attendance(self) -> Attendance:
        return self.attends

    def report(self, name: str, placements: Sequence[Placement], revision: int, *, is_gone: bool = False) -> None:
        """Has a node report these engines, and the assignment of a revision as taken over."""
        engines = tuple(engine(each, is_gone=is_gone) for each in placements)
        self.known[NodeId(name)] = replace(self.known[NodeId(name)], engines=engines, applied=(TERM, revision))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(tmp_path / "store.db") as opened:
        yield opened


def reconciler(store: Store, fleet: Fleet, period_s: float = 3600.0) -> Reconciler:
    return Reconciler(store, fleet, term=TERM, clock=FakeClock(), period_s=period_s)


@contextlib.asynccontextmanager
async def running(loop: Reconciler) -> AsyncIterator[None]:
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def want(store: Store, record: DeploymentRecord) -> None:
    await store.commit([], {record.deployment.name: record.SerializeToString()})


async def placements(store: Store) -> list[Placement]:
    return [
        wire.placement(PlacementRecord.FromString(each.value)) for each in (await store.list("placements/")).entries
    ]


async def assignment(store: Store, name: str) -> tuple[AssignmentRecord, int]:
    entry = await store.get(f"assignments/{name}")
    assert entry is not None
    return AssignmentRecord.FromString(entry.value), entry.revision


async def placed(store: Store, replica_count: int) -> None:
    """Waits until so many placements stand."""
    async for _ in store.watch("placements/", 0):
        if len(await placements(store)) == replica_count:
            return


async def test_a_deployment_is_placed_and_assigned_in_one_commit(store: Store) -> None:
    await want(store, deployment_record(replica_count=3))
    await reconciler(store, Fleet(node("a", 2))).round()
    assert where(await placements(store)) == ["a-0", "a-1", "a-0"]
    record, revision = await assignment(store, "a")
    assert [each.replica_uid for each in record.engines] == [each.replica_uid for each in await placements(store)]
    assert {each.revision for each in (await store.list("placements/")).entries} == {revision}


async def test_a_round_that_finds_nothing_to_do_writes_nothing(store: Store) -> None:
    await want(store, deployment_record(replica_count=2))
    loop = reconciler(store, Fleet(node("a")))
    await loop.round()
    settled = (await store.list("")).revision
    await loop.round()
    assert (await store.list("")).revision == settled


async def test_scaling_writes_the_assignments_of_nodes_that_gain_or_lose_a_replica_only(store: Store) -> None:
    await want(store, deployment_record(replica_count=2))
    fleet = Fleet(node("a"), node("b"))
    loop = reconciler(store, fleet)
    await loop.round()
    (_, first), (_, second) = await assignment(store, "a"), await assignment(store, "b")
    await want(store, deployment_record(replica_count=3, generation=2))
    await loop.round()
    record, changed = await assignment(store, "a")
    assert [each.deployment_generation for each in record.engines] == [1, 2]
    assert changed > first
    assert (await assignment(store, "b"))[1] == second


async def test_a_deleted_deployment_goes_step_by_step_as_its_node_obeys(store: Store) -> None:
    await want(store, deployment_record())
    fleet = Fleet(node("a"))
    loop = reconciler(store, fleet)
    await loop.round()
    fleet.report("a", await placements(store), (await assignment(store, "a"))[1])
    await want(store, deployment_record(is_deleting=True))
    await loop.round()
    record, stop_revision = await assignment(store, "a")
    assert [each.desired_state for each in record.engines] == [DESIRED_STATE_STOPPED]

    fleet.report("a", await placements(store), stop_revision)
    await loop.round()
    assert len(await placements(store)) == 1  # it drains

    fleet.report("a", await placements(store), stop_revision, is_gone=True)
    await loop.round()
    assert await placements(store) == []
    assert await store.get("deployments/chat") is None
    record, emptied = await assignment(store, "a")
    assert not record.engines
    assert emptied > stop_revision  # the record stays, so that the order of what the node is told goes on


async def test_the_assignment_of_a_node_that_is_forgotten_goes_once_it_runs_nothing(store: Store) -> None:
    await want(store, deployment_record())
    fleet = Fleet(node("a"))
    loop = reconciler(store, fleet)
    await loop.round()
    del fleet.known[NodeId("a")]
    await loop.round()
    assert (await assignment(store, "a"))[0].engines  # it may come back with what it runs

    revision = await emptied(store, fleet, loop)
    await loop.round()
    assert (await assignment(store, "a"))[1] == revision  # while the node is known

    del fleet.known[NodeId("a")]
    await loop.round()
    assert await store.get("assignments/a") is None
    assert (await store.list("assignments/")).entries == ()


async def test_a_node_that_comes_back_after_it_was_forgotten_takes_what_it_is_told(store: Store) -> None:
    await want(store, deployment_record())
    fleet = Fleet(node("a"), node("b", 0))
    loop = reconciler(store, fleet)
    await loop.round()
    orphan, *_ = await placements(store)
    applied = await emptied(store, fleet, loop)
    del fleet.known[NodeId("a")]
    await loop.round()

    fleet.known[NodeId("a")] = node("a", engines=[engine(replace(orphan, reserved_bytes=20 * GIB))])
    fleet.report("a", [replace(orphan, reserved_bytes=20 * GIB)], applied)
    await loop.round()
    record, revision = await assignment(store, "a")
    assert not record.engines  # nothing is stopped: the agent keeps what is not mentioned, as an orphan
    assert refusal(Order("one", TERM, applied), Order("one", TERM, 0)) is not None
    assert refusal(Order("one", TERM, applied), Order("one", TERM, revision)) is None

    fleet.report("a", [replace(orphan, reserved_bytes=20 * GIB)], revision)
    await want(store, deployment_record("large"))
    await loop.round()
    assert "20 GiB reserved" in loop.unplaced["large", 0].reason
    assert (await assignment(store, "a"))[1] == revision


async def test_a_node_that_was_told_nothing_in_this_term_gets_no_record(store: Store) -> None:
    fleet = Fleet(node("a"), replace(node("b"), applied=(TERM, 0)), replace(node("c"), applied=(TERM - 1, 99)))
    await reconciler(store, fleet).round()
    assert (await store.list("assignments/")).entries == ()


async def emptied(store: Store, fleet: Fleet, loop: Reconciler) -> int:
    """Deletes the deployment, has node a report all of it gone, and returns the revision of its empty assignment."""
    fleet.known.setdefault(NodeId("a"), node("a"))
    await want(store, deployment_record(is_deleting=True))
    await loop.round()
    fleet.report("a", await placements(store), (await assignment(store, "a"))[1], is_gone=True)
    await loop.round()
    record, revision = await assignment(store, "a")
    assert not record.engines
    fleet.report("a", [], revision)
    return revision


async def test_more_replicas_than_a_node_can_be_told_of_stop_no_round(store: Store) -> None:
    many = [f"{'m' * 60}{number}" for number in range(7)]
    for name in many:
        await want(store, tiny(name, 1000))
    loop = reconciler(store, Fleet(node("a")))
    await loop.round()
    assert len(await placements(store)) == MAX_NODE_REPLICAS
    assert len(loop.unplaced) == 6000
    assert "node a has 1000 replicas, and no node takes more than 1000" in loop.unplaced[many[6], 999].reason


async def test_of_replicas_that_are_refused_in_many_places_those_that_fit_elsewhere_are_found(store: Store) -> None:
    many = [node(f"n{index:02}") for index in range(2 * MOST_MOVES + 2)]
    await want(store, deployment_record("a", len(many) - 1, need_gib=24))
    fleet = Fleet(*many)
    loop = reconciler(store, fleet)
    await loop.round()
    await want(store, deployment_record("z", need_gib=2))
    await loop.round()
    refusing = {each.node: {each.replica_uid: "no"} for each in await placements(store)}
    fleet.known = {each.id: replace(each, refused=refusing[each.id]) for each in many}
    fleet.known[NodeId("spare")] = node("spare", [gpu("spare", 0, total_gib=2)])
    for _ in range(3):
        await loop.round()
    assert "spare-0" in where(await placements(store))


async def test_a_node_that_is_cordoned_while_a_round_runs_gets_nothing_of_it(store: Store) -> None:
    await want(store, deployment_record())

    class Late(Fleet):
        """Learns of the nodes while somebody cordons one."""

        async def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
            await store.commit([], {"nodes/a": NodeRecord(node_id="a").SerializeToString()})
            return await store.commit(compares, puts, deletes)

        async def list(self, prefix: str) -> Listing:
            return await store.list(prefix)

    fleet = Late(node("a"))
    with pytest.raises(Conflict):
        await Reconciler(fleet, fleet, term=TERM, clock=FakeClock()).round()
    assert await placements(store) == []
    loop = reconciler(store, fleet)
    await loop.round()
    assert await placements(store) == []
    assert "node a is cordoned" in loop.unplaced["chat", 0].reason


async def test_a_lost_node_is_left_only_once_the_loop_has_listened_for_a_lease(store: Store) -> None:
    await want(store, deployment_record())
    fleet = Fleet(node("a"))
    loop = reconciler(store, fleet)
    await loop.round()
    fleet.known = {NodeId("a"): node("a", is_ready=False), NodeId("b"): node("b")}
    fleet.attends = Attendance(7.0, {NodeId("a"): 9.0}, running_s=99.0, watched_s=6.9)
    await loop.round()
    assert where(await placements(store)) == ["a-0"]
    assert loop.outcome.get().held[NodeId("a")].reason == "JustStarted"
    fleet.attends = replace(fleet.attends, watched_s=7.0)
    await loop.round()
    assert sorted(where(await placements(store))) == ["a-0", "b-0"]
    assert loop.outcome.get().held == {}


async def test_a_freeze_of_evictions_is_logged_when_it_begins_and_when_it_ends(store: Store) -> None:
    await want(store, deployment_record(replica_count=2))
    fleet = Fleet(node("a"), node("b"), node("c"))
    loop = reconciler(store, fleet)
    await loop.round()
    fleet.known |= {NodeId(name): node(name, is_ready=False) for name in "ab"}
    fleet.attends = Attendance(7.0, {NodeId("a"): 9.0, NodeId("b"): 8.0}, running_s=99.0, watched_s=99.0)
    with structlog.testing.capture_logs() as logs:
        await loop.round()
        await loop.round()
        fleet.known[NodeId("a")] = node("a")
        fleet.attends = replace(fleet.attends, silent_s={NodeId("b"): 9.0})
        await loop.round()
    told = [(each["event"], each["node"]) for each in logs if each["event"].startswith("evictions")]
    assert told == [("evictions frozen", "a,b"), ("evictions go on", "a,b")]


async def test_a_place_that_cannot_be_written_is_told_with_the_reason(store: Store) -> None:
    await want(store, deployment_record(generation=4))
    refusing = Refusing(store)
    loop = Reconciler(refusing, Fleet(node("a")), term=TERM, clock=FakeClock())
    with pytest.raises(InvalidArgument):
        await loop.round()
    assert loop.unplaced["chat", 0].reason == (
        'replica "chat-0" has a place on node a, which cannot be written: "assignments/a" is too large: send less'
    )
    assert loop.outcome.get().observed == {}
    refusing.is_refusing = False
    await loop.round()
    assert not loop.unplaced
    assert loop.outcome.get().observed == {"uid-chat": 4}


def tiny(name: str, replica_count: int) -> DeploymentRecord:
    record = deployment_record(name, replica_count)
    record.memory_need.total_bytes = 1
    return record


class Refusing:
    """A store that does not take what is written."""

    def __init__(self, store: Store) -> None:
        self._store, self.is_refusing = store, True

    async def list(self, prefix: str) -> Listing:
        return await self._store.list(prefix)

    async def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        if self.is_refusing:
            raise InvalidArgument('"assignments/a" is too large: send less')
        return await self._store.commit(compares, puts, deletes)


async def test_a_deployment_that_was_never_looked_up_is_forgotten_when_it_is_deleted(store: Store) -> None:
    await want(store, deployment_record(need_gib=None))
    loop = reconciler(store, Fleet(node("a")))
    await loop.round()
    assert await placements(store) == []
    await want(store, deployment_record(need_gib=None, is_deleting=True))
    await loop.round()
    assert await store.get("deployments/chat") is None


async def test_the_outcome_tells_what_has_no_place_and_what_was_acted_upon(store: Store) -> None:
    await want(store, deployment_record(replica_count=3, need_gib=10, generation=4))
    loop = reconciler(store, Fleet(node("a")))
    before = loop.outcome.get()
    await loop.round()
    assert list(loop.unplaced) == [("chat", 2)]
    assert loop.unplaced["chat", 2].reason.startswith('replica "chat-2" needs 10 GiB; GPU 0 of node a has 4 GiB')
    after = loop.outcome.get()
    assert after.observed == {"uid-chat": 4}
    assert after != before
    await loop.round()
    assert loop.outcome.get() is after


async def test_nothing_is_placed_before_a_node_has_joined(store: Store) -> None:
    await want(store, deployment_record())
    fleet = Fleet()
    loop = reconciler(store, fleet)
    await loop.round()
    assert await placements(store) == []
    assert "no node is connected" in loop.unplaced["chat", 0].reason
    fleet.known = Fleet(node("a")).known
    await loop.round()
    assert where(await placements(store)) == ["a-0"]
    assert not loop.unplaced


@pytest.mark.parametrize("hint", [Reconciler.hint, Reconciler.hint_soon])
async def test_a_hint_is_looked_into_before_the_period_is_over(
    store: Store, hint: Callable[[Reconciler], None]
) -> None:
    loop = reconciler(store, Fleet(node("a")))
    async with running(loop), asyncio.timeout(10):
        await want(store, deployment_record(replica_count=2))
        hint(loop)
        await placed(store, 2)


async def test_without_a_hint_a_look_is_taken_every_period(store: Store) -> None:
    async with running(reconciler(store, Fleet(node("a")), period_s=0.01)), asyncio.timeout(10):
        await want(store, deployment_record(replica_count=2))
        await placed(store, 2)


class Interfering:
    """A store in which somebody else writes just before each of the first commits."""

    def __init__(self, store: Store, *records: DeploymentRecord) -> None:
        self._store, self._records = store, list(records)
        self.commit_count = 0

    async def list(self, prefix: str) -> Listing:
        return await self._store.list(prefix)

    async def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        self.commit_count += 1
        if self._records:
            await want(self._store, self._records.pop(0))
        return await self._store.commit(compares, puts, deletes)


async def test_a_decision_that_was_overtaken_is_made_again(store: Store) -> None:
    await want(store, deployment_record(replica_count=1))
    overtaking = Interfering(store, deployment_record(replica_count=2), deployment_record(replica_count=3))
    loop = Reconciler(overtaking, Fleet(node("a")), term=TERM, clock=FakeClock(), period_s=3600.0)
    async with running(loop), asyncio.timeout(10):
        await placed(store, 3)
    assert overtaking.commit_count == 3


class Failing:
    """A store that does not answer the first times."""

    def __init__(self, store: Store, times: int) -> None:
        self._store, self._left = store, times

    async def list(self, prefix: str) -> Listing:
        if self._left:
            self._left -= 1
            raise Unreachable("the store did not answer within 5 s")
        return await self._store.list(prefix)

    async def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        return await self._store.commit(compares, puts, deletes)


async def test_the_loop_survives_a_store_that_does_not_answer(store: Store) -> None:
    await want(store, deployment_record())
    loop = Reconciler(Failing(store, 2), Fleet(node("a")), term=TERM, clock=FakeClock(), period_s=3600.0)
    with structlog.testing.capture_logs() as logs:
        async with running(loop), asyncio.timeout(10):
            await placed(store, 1)
    failed = [each for each in logs if each["event"] == "round failed"]
    assert [(each["attempt"], each["log_level"]) for each in failed] == [(1, "error"), (2, "error")]


async def test_the_loop_survives_a_fault_of_ours_and_logs_the_traceback(store: Store) -> None:
    await want(store, deployment_record())
    fleet = Fleet(node("a"))
    fleet.error = RuntimeError("a fault")
    loop = reconciler(store, fleet)
    with structlog.testing.capture_logs() as logs:
        async with running(loop), asyncio.timeout(10):
            await fleet.was_asked.wait()
            fleet.error = None
            loop.hint()
            await placed(store, 1)
    assert any(each.get("exc_info") is not None for each in logs)
