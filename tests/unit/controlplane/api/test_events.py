"""Events: what happened is kept, counted and watched, through restarts, and never more than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from controlplane.api import chronicle, event_log
from controlplane.api.event_log import EventLog
from controlplane.events import ring
from controlplane.events.happenings import Happening
from controlplane.store.protocol import Compare
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import InvalidArgument, TooLong, Unreachable
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_pb2, event_service_pb2_grpc
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1 import event_service_pb2 as events_pb
from roundhouse.v1.event_pb2 import EVENT_TYPE_WARNING, Event
from tests.support.clock import FakeClock
from tests.support.plane import PATIENCE_S, Plane, plane_on, reason_of, refused
from tests.support.scripted_agent import ScriptedAgent

CHAT = "deployments/chat"
CHAT_0 = f"{CHAT}/replicas/0"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks, and writes what happened, at once."""
    monkeypatch.setattr(chronicle, "PERIOD_S", 0.0)
    monkeypatch.setattr(event_log, "PERIOD_S", 0.01)


@contextlib.asynccontextmanager
async def events_of(plane: Plane) -> AsyncIterator[Any]:
    async with open_channel(plane.address) as channel:
        yield event_service_pb2_grpc.EventServiceStub(channel)


async def listed(plane: Plane, object_: str = "", **fields: Any) -> events_pb.ListEventsResponse:
    async with events_of(plane) as stub:
        response: events_pb.ListEventsResponse = await stub.ListEvents(
            events_pb.ListEventsRequest(object=object_, **fields)
        )
        return response


async def until(plane: Plane, holds: Callable[[Sequence[Event]], object], object_: str = "") -> Sequence[Event]:
    """Watches until something holds of all events; returns them by name."""
    seen: dict[str, Event] = {}
    async with events_of(plane) as stub:
        call = stub.WatchEvents(events_pb.WatchEventsRequest(object=object_))
        async with plane.watching(call) as notices:
            async for notice in notices:
                if notice.HasField("changed"):
                    seen[notice.changed.name] = notice.changed
                found = [seen[name] for name in sorted(seen)]
                if holds(found):
                    return found
    raise AssertionError("the watch ended")


async def told(plane: Plane, object_: str, *reasons: str) -> Sequence[Event]:
    """Waits until just these things have happened to an object."""
    return await until(plane, lambda found: [each.reason for each in found] == list(reasons), object_)


async def happened(plane: Plane, object_: str, **counts: int) -> Sequence[Event]:
    """Waits until these things, and no others, have happened to an object so often."""
    return await until(plane, lambda found: {each.reason: each.count for each in found} == counts, object_)


async def notices(plane: Plane, cursor: str = "", object_: str = "") -> list[events_pb.EventNotice]:
    """Everything up to and with the first bookmark."""
    found = []
    async with events_of(plane) as stub:
        call = stub.WatchEvents(events_pb.WatchEventsRequest(object=object_, cursor=cursor))
        async with plane.watching(call) as watch:
            async for notice in watch:
                found.append(notice)
                if notice.HasField("bookmark"):
                    break
    return found


def killed(agent: ScriptedAgent, at_s: float) -> None:
    death = deployment_pb2.EngineExit(signal=9, exit_time=to_timestamp(at_s), stderr_lines=["the words of an engine"])
    for each in agent.engines.values():
        each.last_exit.CopyFrom(death)
    agent.become(deployment_pb2.REPLICA_STATE_FAILED)


async def test_the_story_of_a_deployment_is_told_and_outlives_it(plane: Plane) -> None:
    agent = ScriptedAgent("one")
    async with agent.joined(plane.address):
        await plane.create()
        await told(plane, CHAT_0, "Placed", "Ready")
        killed(agent, 5.0)
        *_, died = await told(plane, CHAT_0, "Placed", "Ready", "Died")
        assert died.message == "the engine on nodes/one gpu 0 was killed by SIGKILL"
        assert (died.object, died.type, died.count) == (CHAT_0, EVENT_TYPE_WARNING, 1)
        agent.become(deployment_pb2.REPLICA_STATE_READY, engine_uuid="another")
        found = await happened(plane, CHAT_0, Placed=1, Ready=2, Died=1)
        assert found[1].first_time.ToNanoseconds() < found[1].last_time.ToNanoseconds()
        await plane.deployments.ScaleDeployment(pb.ScaleDeploymentRequest(name=CHAT, replica_count=2))
        await until(plane, lambda all_: any(each.reason == "Scaled" for each in all_))
        await plane.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=CHAT))
        found = await until(plane, lambda all_: any(each.reason == "Deleted" for each in all_))
    of_chat = [each.reason for each in found if each.object == CHAT]
    assert of_chat == ["Created", "Scaled", "Deleting", "Deleted"]
    assert [each.reason for each in found if each.object == CHAT_0] == ["Placed", "Ready", "Died", "Stopped"]
    assert "Joined" in [each.reason for each in found if each.object == "nodes/one"]
    assert not any("the words of an engine" in each.message for each in found)


async def test_a_replica_that_its_node_refuses_is_a_warning_in_the_words_of_the_agent(plane: Plane) -> None:
    agent = ScriptedAgent("one", gpu_count=1)
    agent.is_keen = False
    async with agent.joined(plane.address):
        await plane.create()
        [assigned] = (await agent.assigned(lambda each: len(each.engines) == 1)).engines
        agent.refusals[assigned.replica_uid] = "2 GiB are missing: free them"
        del agent.engines[assigned.replica_uid]
        agent.report()
        found = await until(plane, lambda all_: any(each.reason == "Refused" for each in all_), CHAT_0)
    [refusal] = [each for each in found if each.reason == "Refused"]
    assert (refusal.message, refusal.type) == ("2 GiB are missing: free them", EVENT_TYPE_WARNING)


async def test_what_does_not_fit_is_a_warning_with_the_reason(plane: Plane) -> None:
    await plane.create(allow_pending=True)
    [unplaced] = await told(plane, CHAT_0, "Unplaced")
    assert unplaced.type == EVENT_TYPE_WARNING
    assert "no node" in unplaced.message


async def test_a_node_that_is_lost_and_comes_back_is_told_once_each(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state", lease_s=0.5) as plane:
        agent = ScriptedAgent("one")
        agent.period_s = 0.1
        async with agent.joined(plane.address):
            await happened(plane, "nodes/one", Joined=1)
        await happened(plane, "nodes/one", Joined=1, Lost=1)
        async with agent.joined(plane.address):
            await happened(plane, "nodes/one", Joined=1, Lost=1, Returned=1)
        found = await happened(plane, "nodes/one", Joined=1, Lost=2, Returned=1)
        assert [each.type == EVENT_TYPE_WARNING for each in found] == [False, True, False]


async def test_after_a_restart_everything_is_kept_and_nothing_told_again(tmp_path: Path) -> None:
    agent = ScriptedAgent("one")
    async with plane_on(tmp_path / "state") as plane, agent.joined(plane.address):
        await plane.create()
        await told(plane, CHAT_0, "Placed", "Ready")
        killed(agent, 5.0)
        before = list(await told(plane, CHAT_0, "Placed", "Ready", "Died"))
        everything = (await listed(plane)).events
    async with plane_on(tmp_path / "state") as plane, agent.joined(plane.address):
        failed = deployment_pb2.REPLICA_STATE_FAILED
        await plane.until_replicas(lambda all_: bool(all_) and all_[CHAT_0].state == failed)
        agent.become(deployment_pb2.REPLICA_STATE_READY, engine_uuid="another")
        after = await happened(plane, CHAT_0, Placed=1, Ready=2, Died=1)  # what comes next is told
        assert [each.reason for each in after] == [each.reason for each in before]
        now = (await listed(plane)).events
        assert [(each.name, each.count) for each in now if each.object != CHAT_0] == [
            (each.name, each.count) for each in everything if each.object != CHAT_0
        ]


async def test_a_list_comes_in_pages_and_shows_what_was_asked_for(plane: Plane) -> None:
    for name in ("a", "ab"):
        await plane.create(name, allow_pending=True)
        await told(plane, f"deployments/{name}/replicas/0", "Unplaced")
    whole = (await listed(plane)).events
    first = await listed(plane, page_size=3)
    second = await listed(plane, page_size=3, page_token=first.next_page_token)
    assert [*first.events, *second.events] == list(whole)
    assert (second.next_page_token, second.cursor) == ("", first.cursor)
    assert {each.object for each in (await listed(plane, "deployments/a")).events} == {
        "deployments/a",
        "deployments/a/replicas/0",
    }
    assert not (await listed(plane, "nodes/none")).events
    error = await refused(listed(plane, "deployments/a", page_token=first.next_page_token))
    assert reason_of(error) == "RELIST"


@pytest.mark.parametrize("object_", ["chat", "deployments", "deployments/a/b", "gpus/a"])
async def test_a_malformed_object_is_refused(plane: Plane, object_: str) -> None:
    error = await refused(listed(plane, object_))
    assert isinstance(error, InvalidArgument)
    assert [each.field for each in error.fields] == ["object"]
    assert isinstance(await refused(notices(plane, object_=object_)), InvalidArgument)


@pytest.mark.parametrize("source", ["list", "notice", "bookmark"])
async def test_behind_a_cursor_comes_what_has_happened_since_and_no_more(tmp_path: Path, source: str) -> None:
    async with plane_on(tmp_path / "state") as plane:
        await plane.create("a", allow_pending=True)
        await until(plane, lambda found: len(found) == 2)
        seen = await notices(plane)
        listing = await listed(plane)
        cursor = {"list": listing.cursor, "notice": seen[0].cursor, "bookmark": seen[-1].cursor}[source]
        await plane.create("b", allow_pending=True)
        await until(plane, lambda found: len(found) == 4)
    async with plane_on(tmp_path / "state") as plane:
        since = await notices(plane, cursor)
    objects = {each.changed.object for each in since if each.HasField("changed")}
    assert objects >= {"deployments/b", "deployments/b/replicas/0"}
    assert source == "notice" or not any(each.startswith("deployments/a") for each in objects)


@pytest.mark.parametrize("cursor", ["nonsense", "é", "YS9iL2Mv"])
async def test_an_unknown_cursor_says_to_list_again(plane: Plane, cursor: str) -> None:
    error = await refused(notices(plane, cursor))
    assert isinstance(error, TooLong)
    assert reason_of(error) == "RELIST"


async def test_a_cursor_behind_which_something_was_dropped_says_to_list_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "PLACES", 3)
    async with plane_on(tmp_path / "state") as plane:
        cursor = (await notices(plane))[-1].cursor
        for name in "abc":
            await plane.create(name, allow_pending=True)
            await told(plane, f"deployments/{name}/replicas/0", "Unplaced")
        assert len((await listed(plane)).events) == 3
        assert reason_of(await refused(notices(plane, cursor))) == "RELIST"
        fresh = (await listed(plane)).cursor
    async with plane_on(tmp_path / "state") as plane:
        assert reason_of(await refused(notices(plane, cursor))) == "RELIST"
        assert len(await notices(plane, fresh)) == 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "store") as store:
        yield store


@contextlib.asynccontextmanager
async def running(log: EventLog) -> AsyncIterator[EventLog]:
    async with log.kept(), asyncio.TaskGroup() as group:
        task = group.create_task(log.run())
        yield log
        task.cancel()


async def kept(log: EventLog, count: int) -> list[Event]:
    """Waits until so many events are kept."""
    changed = asyncio.Event()
    with log.table.changes.to(lambda _: changed.set()):
        async with asyncio.timeout(PATIENCE_S):
            while len(log.table.rows) < count:
                changed.clear()
                await changed.wait()
    return [row.value for row in log.table.rows.values()]


def happening(number: int) -> Happening:
    return Happening(f"nodes/n{number}", "Lost", "x")


async def test_however_much_happens_a_write_holds_so_much_and_memory_as_much(store: SqliteStore) -> None:
    async with running(EventLog(store, FakeClock())) as log:
        for _ in range(50):
            log.note([happening(1)])
        [event] = await kept(log, 1)
        assert event.count == 50
        begin = log.table.revision
        log.note(happening(number) for number in range(10_000))
        events = await kept(log, event_log.MOST_PENDING)
        assert log.table.revision - begin == event_log.MOST_PENDING / event_log.MOST
        assert {each.object for each in events} >= {f"nodes/n{number}" for number in range(9_100, 10_000)}


class Uncertain:
    """A store that writes, and then says that it does not know."""

    def __init__(self, store: SqliteStore) -> None:
        self._store, self.doubts = store, 1

    async def commit(
        self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Collection[str] = ()
    ) -> int:
        revision = await self._store.commit(compares, puts, deletes)
        if self.doubts:
            self.doubts -= 1
            raise Unreachable("the store did not answer")
        return revision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_write_of_which_nobody_knows_is_not_made_twice(store: SqliteStore) -> None:
    uncertain: Any = Uncertain(store)
    async with running(EventLog(uncertain, FakeClock())) as log:
        log.note([happening(1)])
        await kept(log, 1)
        log.note([happening(1), happening(2)])
        events = await kept(log, 2)
    assert uncertain.doubts == 0
    assert {each.object: each.count for each in events} == {"nodes/n1": 2, "nodes/n2": 1}
