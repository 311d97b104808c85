"""Requests wait as tasks do: let in without a switch of tasks where there is room, and gone without a trace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from controlplane.gateway.admission.admission import Admission, Ticket, Withdrawn
from controlplane.gateway.admission.requests import Cost
from controlplane.gateway.live import RequestKey
from controlplane.model import AdmissionSettings, NodeId, Quota, ReplicaUid, Route, Routes
from roundhouse.kit.errors import DeadlineExceeded, NoCapacity
from roundhouse.v1 import receipt_pb2
from tests.support.clock import FakeClock

ROUTE = Route("chat", 0, ReplicaUid("r"), 1, NodeId("a"), "h:1", "e", b"k", True, 0, 0, max_running_count=1)
ROOM = 2  # with what an engine is to have at hand


class Desk:
    """An admission, and tasks that go through it."""

    def __init__(self, settings: AdmissionSettings | None = None) -> None:
        self.clock = FakeClock()
        self.routes = Routes({"chat": (ROUTE,), "other": (ROUTE,)})
        self.deposited: list[tuple[RequestKey, receipt_pb2.CancelReceipt]] = []
        self.admission = Admission(
            settings or AdmissionSettings(),
            lambda: self.routes,
            self.clock,
            deposit=lambda key, receipt: self.deposited.append((key, receipt)),
        )
        self.going: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    def ticket(
        self, name: str, *, deployment: str = "chat", tenant: str = "", deadline_s: float | None = None
    ) -> Ticket:
        return self.admission.admitted(
            RequestKey("me", deployment, name), Cost(1, 10), tenant=tenant, deadline_s=deadline_s
        )

    async def start(self, name: str, **arguments: str) -> None:
        self.ends[name] = asyncio.Event()

        async def go() -> None:
            async with self.ticket(name, **arguments):  # type: ignore[arg-type]
                self.going.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(go(), name=name)
        await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    it = Desk()
    yield it
    await finished(it)


async def finished(it: Desk) -> None:
    """Ends all that is left; then nothing is."""
    for task in it.tasks.values():
        task.cancel()
    await asyncio.gather(*it.tasks.values(), return_exceptions=True)
    assert list(it.admission.waiting("chat")) == []
    it.routes = Routes({})
    it.admission.look(it.routes)
    for number in range(ROOM):  # everything is free again
        it.routes = Routes({"chat": (ROUTE,)})
        it.admission.look(it.routes)
        await it.start(f"probe {number}")
        assert f"probe {number}" in it.going
    for number in range(ROOM):
        await it.end(f"probe {number}")


def test_where_there_is_room_nothing_is_awaited() -> None:
    it = Desk()
    entering = it.ticket("r").__aenter__()
    with pytest.raises(StopIteration):  # it ends at the first step, outside of any event loop
        entering.send(None)


async def test_the_next_is_let_in_when_one_has_ended(desk: Desk) -> None:
    for name in "abcd":
        await desk.start(name)
    assert desk.going == ["a", "b"]
    assert [each.request_id for each in desk.admission.waiting("chat")] == ["c", "d"]
    await desk.end("b")
    assert desk.going == ["a", "b", "c"]


async def test_one_that_fails_gives_up_its_place_too(desk: Desk) -> None:
    await desk.start("a")

    async def fail() -> None:
        async with desk.ticket("b"):
            await desk.start("c")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    await asyncio.sleep(0)
    assert desk.going == ["a", "c"]


async def test_one_that_is_cancelled_as_it_is_let_in_leaves_its_place_to_the_next(desk: Desk) -> None:
    for name in "abcd":
        await desk.start(name)
    desk.ends["a"].set()
    desk.tasks["c"].cancel()  # which hears of both in one turn of the loop
    with contextlib.suppress(asyncio.CancelledError):
        await desk.tasks["c"]
    await desk.tasks["a"]
    await asyncio.sleep(0)
    assert desk.going == ["a", "b", "d"]


async def test_a_place_that_came_at_the_moment_of_leaving_is_used_by_the_next(desk: Desk) -> None:
    for name in "abcd":
        await desk.start(name)
    desk.tasks["a"].cancel()  # lets c in, which
    await asyncio.sleep(0)  # is woken,
    desk.tasks["c"].cancel()  # and leaves before it runs
    await asyncio.gather(desk.tasks["a"], desk.tasks["c"], return_exceptions=True)
    await asyncio.sleep(0)
    assert desk.going == ["a", "b", "d"]


async def test_a_cancel_ends_the_wait_and_its_receipt_is_kept(desk: Desk) -> None:
    for name in "abc":
        await desk.start(name)
    key = RequestKey("me", "chat", "c")
    receipt = desk.admission.cancel(key)
    with pytest.raises(Withdrawn) as withdrawn:
        await desk.tasks["c"]
    assert receipt == withdrawn.value.receipt == desk.admission.receipt(key)
    assert desk.admission.cancel(key) is None  # it waits no more
    assert desk.admission.receipt(RequestKey("you", "chat", "c")) is None
    assert desk.admission.cancel(RequestKey("me", "chat", "a")) is None  # it is at its engine
    desk.clock.advance(601)
    assert desk.admission.receipt(key) is None


async def test_an_id_that_comes_again_has_no_receipt_of_before(desk: Desk) -> None:
    for name in "abc":
        await desk.start(name)
    desk.tasks["c"].cancel()
    await asyncio.wait([desk.tasks["c"]])
    key = RequestKey("me", "chat", "c")
    receipt = desk.admission.receipt(key)
    assert receipt is not None
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_DISCONNECT
    await desk.end("a")
    await desk.start("c")
    assert desk.going == ["a", "b", "c"]
    assert desk.admission.receipt(key) is None


async def test_a_deadline_ends_the_wait(desk: Desk) -> None:
    for name in "ab":
        await desk.start(name)
    with pytest.raises(DeadlineExceeded):
        async with desk.ticket("c", deadline_s=0.01):
            raise AssertionError("it was let in")
    receipt = desk.admission.receipt(RequestKey("me", "chat", "c"))
    assert receipt is not None
    assert receipt.cause == receipt_pb2.CANCEL_CAUSE_DEADLINE


async def test_each_that_ends_while_it_waits_has_its_receipt_deposited_and_no_other() -> None:
    it = Desk(AdmissionSettings(queue_requests=3))
    for name in ("a", "b", "cancelled", "left", "put out"):
        await it.start(name, tenant="one")
    await it.start("c", tenant="two")  # has less than its share, and goes at once
    await it.start("d", tenant="two")  # there are too many now, and most of them are of the other
    it.admission.cancel(RequestKey("me", "chat", "cancelled"))
    it.tasks["left"].cancel()
    await asyncio.wait([it.tasks["left"]])
    with pytest.raises(DeadlineExceeded):
        async with it.ticket("late", deadline_s=0.01):
            raise AssertionError("it was let in")
    for name in "abcd":
        it.ends[name].set()
    await asyncio.gather(*it.tasks.values(), return_exceptions=True)
    assert {key.request_id: receipt.cause for key, receipt in it.deposited} == {
        "put out": receipt_pb2.CANCEL_CAUSE_EVICTED,
        "cancelled": receipt_pb2.CANCEL_CAUSE_CLIENT,
        "left": receipt_pb2.CANCEL_CAUSE_DISCONNECT,
        "late": receipt_pb2.CANCEL_CAUSE_DEADLINE,
    }
    assert all(it.admission.receipt(key) == receipt for key, receipt in it.deposited)
    assert len(it.deposited) == 4


async def test_more_room_lets_more_in_and_where_no_engine_is_ready_all(desk: Desk) -> None:
    for name in "abcdefg":
        await desk.start(name)
    desk.routes = Routes({"chat": (ROUTE, ROUTE)})
    desk.admission.look(desk.routes)
    await asyncio.sleep(0)
    assert desk.going == list("abcd")
    desk.routes = Routes({"chat": (ROUTE,)}, frozenset({"chat"}))
    desk.admission.look(desk.routes)
    await asyncio.sleep(0)
    assert desk.going == list("abcdefg")


async def test_one_deployment_does_not_hold_up_another(desk: Desk) -> None:
    for name in "abc":
        await desk.start(name)
    await desk.start("x", deployment="other")
    assert desk.going == ["a", "b", "x"]


async def test_what_is_used_of_a_quota_is_what_was_told_and_nothing_if_it_never_ran() -> None:
    it = Desk(AdmissionSettings(quotas={"ada": Quota(None, 60.0)}))
    for name, tenant in (("a", "bob"), ("b", "bob"), ("x", "cy"), ("c", "ada")):
        await it.start(name, tenant=tenant)
    assert it.going == ["a", "b", "x"]
    it.tasks["c"].cancel()
    await asyncio.wait([it.tasks["c"]])
    await it.end("a")
    await it.end("x")
    async with it.ticket("d", tenant="ada") as ticket:
        ticket.spent(30, 30)
    with pytest.raises(NoCapacity, match="60 tokens a minute"):
        async with it.ticket("e", tenant="ada"):
            raise AssertionError("it was let in")
    it.clock.advance(2.0)
    async with it.ticket("f", tenant="ada"):
        pass
    await it.end("b")
