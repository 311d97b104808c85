"""Clients of a soak see what is wrong and nothing else, and a slope is told with how sure it is."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from benchmarks.support.soak_users import Users
from benchmarks.support.token_source import Source, told
from benchmarks.support.trend import trend
from roundhouse.kit.channel import open_channel
from roundhouse.kit.errors import Unreachable
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import inference_service_pb2

INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]


@contextlib.asynccontextmanager
async def users_of(servicer: object) -> AsyncIterator[Users]:
    async with (
        serve(Listen("127.0.0.1", 0), [Service(INFERENCE, servicer)], grace_s=0.0) as serving,
        open_channel(serving.address) as channel,
    ):
        yield Users([channel], channel, seed=1, most_tokens=40)


async def run(users: Users, until: Any) -> None:
    ending = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(users.run(number, ending))
        while not until():  # noqa: ASYNC110 - of counters there is no event
            await asyncio.sleep(0.01)
        ending.set()


async def test_users_read_cancel_leave_and_read_slowly_and_a_good_server_gives_no_error() -> None:
    source = Source()
    async with users_of(source) as users:
        await run(users, lambda: len(users.requests) == 4)
        assert (users.error_count, users.errors) == (0, [])
    assert users.tokens > 0
    assert (await source.live())["count"] == 0


class Skipping:
    """Leaves out a token."""

    async def Generate(self, _: object, context: Any) -> None:
        await context.write(told(0, 1))
        await context.write(told(2, 3))


class Short:
    """Ends without an end."""

    async def Generate(self, _: object, context: Any) -> None:
        await context.write(told(0, 1))


class Away:
    """Serves nobody."""

    async def Generate(self, _: object, context: Any) -> None:
        raise Unreachable("out for lunch: try again")


@pytest.mark.parametrize(
    ("servicer", "said"),
    [(Skipping(), "position 2 came behind 1 tokens"), (Short(), "the end was"), (Away(), "out for lunch")],
    ids=["a token is missing", "an end is missing", "an error that is not the client's"],
)
async def test_what_goes_wrong_is_counted_and_kept_in_words(servicer: object, said: str) -> None:
    async with users_of(servicer) as users:
        await run(users, lambda: users.error_count >= 30)
        assert any(said in each for each in users.errors)
        assert len(users.errors) <= 20


def test_a_straight_line_is_found_whole() -> None:
    found = trend([0, 1, 2, 3], [5, 7, 9, 11])
    assert (found.slope, found.start, found.slope_error) == pytest.approx((2, 5, 0))
    assert found.explained_fraction == pytest.approx(1)


def test_noise_without_a_slope_says_how_little_is_known() -> None:
    found = trend([0, 1, 2, 3], [5, 6, 6, 5])
    assert found.slope == pytest.approx(0)
    assert found.slope_error == pytest.approx(math.sqrt(1 / 2 / 5))
    assert found.explained_fraction == pytest.approx(0)


def test_a_constant_is_a_line_and_a_point_is_none() -> None:
    assert trend([0, 1], [3, 3]).slope == 0
    with pytest.raises(ValueError, match="two points"):
        trend([1, 1], [2, 3])
