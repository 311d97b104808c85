"""Requests lose their engine, and a gateway looks for another one, among engines that do as a script says."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from controlplane.model import Route
from tests.support.between_engines import Heard, between, differs, goes_on, hands_over, rest_of, tell
from tests.support.gateway_house import Engine, House, is_full

LEAST_PAUSE_S = 0.125  # between two rounds


async def told_often(it: House, *routes: Route) -> None:
    """Reports come, thick and fast, that say something new of the same replicas; each is taken in."""
    for number in range(30):
        tell(it, *[replace(each, running_count=number) for each in routes])
        await it.cancel(f"other-{number}")


@pytest.mark.parametrize(
    ("told", "times"), [pytest.param("g", 0, id="its report says so"), pytest.param("", 1, id="only it can say so")]
)
async def test_an_engine_that_computes_something_else_is_asked_only_if_that_is_not_known_and_once(
    told: str, times: int
) -> None:
    other, equal = Engine("other", differs), Engine("equal", goes_on)
    async with between(Heard("own", hands_over), other, equal) as (it, call, (_, one, same)):
        newer = replace(one, fingerprint=told)
        await told_often(it, newer)
        tell(it, newer, same)
        assert await rest_of(call) == "1"
    assert (len(other.hops), len(equal.hops)) == (times, 1)


async def test_engines_are_not_asked_once_more_whenever_something_is_reported() -> None:
    full, equal = Engine("full", is_full), Engine("equal", goes_on)
    async with between(Heard("own", hands_over), full, equal) as (it, call, (_, one, same)):
        begin_s = time.monotonic()
        await told_often(it, one)
        asked, rounds = len(full.hops), 1 + (time.monotonic() - begin_s) / LEAST_PAUSE_S
        tell(it, one, same)
        assert await rest_of(call) == "1"
    assert 1 <= asked <= rounds


async def test_an_engine_that_is_ready_once_more_is_asked_once_more() -> None:
    full = Engine("full", is_full)
    async with between(Heard("own", hands_over), full) as (it, call, (_, one)):
        await told_often(it, one)
        full.script = goes_on
        tell(it, replace(one, is_ready=False))
        await it.cancel("other")
        tell(it, one)
        assert await rest_of(call) == "1"
