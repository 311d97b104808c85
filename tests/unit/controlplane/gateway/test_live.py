"""Who finds a request its place, and who waits for that."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from controlplane.gateway.live import Break, LiveRequests, RequestKey
from controlplane.model import NodeId, ReplicaUid, Route

KEY = RequestKey("me", "chat", "r")
ROUTE = Route("chat", 0, ReplicaUid("r0"), 1, NodeId("a"), "a:1", "e0", b"key", True, 0, 0)


async def test_one_of_several_finds_the_place_and_the_others_hear_of_it() -> None:
    live = LiveRequests()
    with contextlib.ExitStack() as kept:
        for _ in range(3):
            kept.enter_context(live.keep(KEY, is_new=False))
        assert await live.claim(KEY) is None
        others = [asyncio.create_task(live.claim(KEY)) for _ in range(2)]
        await asyncio.sleep(0)
        assert live.is_being_placed(KEY)
        assert not any(each.done() for each in others)
        with live.trying(KEY, ROUTE):
            assert live.where(KEY) == ROUTE
            for _ in range(5):
                await asyncio.sleep(0)
            assert not any(each.done() for each in others)
        assert await asyncio.gather(*others) == [ROUTE, ROUTE]
        assert live.where(KEY) == ROUTE
    assert not live.is_live(KEY)


async def test_if_the_first_finds_none_exactly_one_other_goes_on() -> None:
    live = LiveRequests()
    with contextlib.ExitStack() as kept:
        for _ in range(3):
            kept.enter_context(live.keep(KEY, is_new=False))
        assert await live.claim(KEY) is None
        others = [asyncio.create_task(live.claim(KEY)) for _ in range(2)]
        await asyncio.sleep(0)
        live.release(KEY)
        for _ in range(5):
            await asyncio.sleep(0)
        assert [each.done() for each in others].count(True) == 1
        with live.trying(KEY, ROUTE):
            pass
        assert {await each for each in others} == {None, ROUTE}


async def test_who_attaches_waits_only_while_somebody_looks_for_a_place() -> None:
    live = LiveRequests()
    with live.keep(KEY, is_new=False):
        await live.placed(KEY)
        assert await live.claim(KEY) is None
        waiting = asyncio.create_task(live.placed(KEY))
        await asyncio.sleep(0)
        assert not waiting.done()
        live.release(KEY)
        await waiting


def test_an_engine_that_does_not_take_a_request_leaves_it_where_it_was() -> None:
    live, other = LiveRequests(), replace(ROUTE, engine_uuid="e1")
    with live.keep(KEY, is_new=True):
        with contextlib.suppress(RuntimeError), live.trying(KEY, other):
            raise RuntimeError
        assert live.where(KEY) is None
        with live.trying(KEY, ROUTE):
            pass
        with contextlib.suppress(RuntimeError), live.trying(KEY, other):
            assert live.where(KEY) == other
            raise RuntimeError
        assert live.where(KEY) == ROUTE


def test_who_looks_for_a_request_does_not_make_it_live_and_one_that_was_lost_is_not() -> None:
    live = LiveRequests()
    with live.keep(KEY, is_new=False), live.keep(KEY, is_new=False):
        assert not live.is_live(KEY)
        with live.trying(KEY, ROUTE):
            assert not live.is_live(KEY)
        assert live.is_live(KEY)
        live.lose(KEY, ROUTE)
        assert not live.is_live(KEY)
        assert live.where(KEY) == ROUTE


async def test_a_request_is_withdrawn_only_between_two_engines() -> None:
    live = LiveRequests()
    assert not live.withdraw(KEY)
    with live.keep(KEY, is_new=False):
        assert not live.withdraw(KEY)
        with live.between(KEY, Break(ROUTE, 1)) as withdrawn:
            assert live.withdraw(KEY)
            assert withdrawn.is_set()
        assert not live.withdraw(KEY)
