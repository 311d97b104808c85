"""Join tokens: each good once, for a while, for the node it is for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.auth.enrolling import Enrolling
from controlplane.auth.epochs import Epochs
from controlplane.store.sqlite import open_sqlite
from roundhouse.kit.certificates import Authority, life_of, new_key, signing_request
from roundhouse.kit.errors import Forbidden, InvalidArgument, NoCapacity, Unauthenticated
from roundhouse.kit.status import reason_name
from tests.support.clock import FakeClock

LIFE_S = 1000.0
HOUR_S = 3600.0
MOST = 3


@dataclass
class Desk:
    """What gives certificates, and the fleet that it looks at."""

    enrolling: Enrolling
    clock: FakeClock
    known: set[str] = field(default_factory=set)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FakeClock()
    authority = Authority.make("test", clock.now())
    known: set[str] = set()
    async with open_sqlite(tmp_path / "store.sqlite") as store:
        epochs = Epochs(store)
        async with epochs.kept():
            enrolling = Enrolling(store, clock, authority, epochs, known.__contains__, life_s=LIFE_S, most=MOST)
            yield Desk(enrolling, clock, known)


def asked(node: str = "a", key: bytes | None = None) -> bytes:
    return signing_request(key or new_key(), node)


async def test_a_token_gives_one_node_a_certificate_of_the_length_that_is_set(desk: Desk) -> None:
    secret, expire_s = await desk.enrolling.create(HOUR_S, "")
    assert expire_s == desk.clock.now() + HOUR_S
    signed = await desk.enrolling.enroll(secret, "a", asked())
    assert signed.expire_s == desk.clock.now() + LIFE_S
    assert life_of(signed.certificate)[1] == signed.expire_s


async def test_a_second_use_is_refused_but_an_answer_that_was_lost_can_be_asked_for_again(desk: Desk) -> None:
    secret, _ = await desk.enrolling.create(HOUR_S, "")
    key = new_key()
    await desk.enrolling.enroll(secret, "a", asked("a", key))
    await desk.enrolling.enroll(secret, "a", asked("a", key))
    for node, request in (("a", asked()), ("b", asked("b")), ("b", asked("b", key))):
        with pytest.raises(
            Unauthenticated, match='used already: make another one with "roundhouse agent token"'
        ) as error:
            await desk.enrolling.enroll(secret, node, request)
        assert reason_name(error.value.own_reason) == "JOIN_TOKEN_INVALID"


async def test_an_unknown_or_expired_token_is_refused(desk: Desk) -> None:
    with pytest.raises(Unauthenticated, match="the join token is unknown"):
        await desk.enrolling.enroll("rhj_guessed", "a", asked())
    secret, _ = await desk.enrolling.create(HOUR_S, "")
    key = new_key()
    await desk.enrolling.enroll(secret, "a", asked("a", key))
    desk.clock.advance(HOUR_S)
    with pytest.raises(Unauthenticated, match="the join token has expired"):
        await desk.enrolling.enroll(secret, "a", asked("a", key))


async def test_a_token_for_one_node_is_for_no_other(desk: Desk) -> None:
    secret, _ = await desk.enrolling.create(HOUR_S, "a")
    with pytest.raises(Forbidden, match='is for node "a", not for "b"') as error:
        await desk.enrolling.enroll(secret, "b", asked("b"))
    assert reason_name(error.value.own_reason) == "NODE_MISMATCH"
    await desk.enrolling.enroll(secret, "a", asked())  # what was refused has not used it up


async def test_a_node_that_the_fleet_knows_needs_a_token_of_its_own(desk: Desk) -> None:
    desk.known.add("a")
    secret, _ = await desk.enrolling.create(HOUR_S, "")
    with pytest.raises(Forbidden, match=r'the fleet has a node "a".*roundhouse agent token --node a'):
        await desk.enrolling.enroll(secret, "a", asked())
    own, _ = await desk.enrolling.create(HOUR_S, "a")
    await desk.enrolling.enroll(own, "a", asked())


async def test_a_node_that_was_thrown_out_needs_a_token_of_its_own(desk: Desk) -> None:
    await desk.enrolling.epochs.revoke("a")
    secret, _ = await desk.enrolling.create(HOUR_S, "")
    with pytest.raises(Forbidden, match="roundhouse agent token --node a"):
        await desk.enrolling.enroll(secret, "a", asked())


@pytest.mark.parametrize("request_", [b"", b"-----BEGIN", b"x" * 20_000], ids=["nothing", "torn", "long"])
async def test_what_is_no_signing_request_is_refused_and_uses_nothing_up(desk: Desk, request_: bytes) -> None:
    secret, _ = await desk.enrolling.create(HOUR_S, "")
    with pytest.raises(InvalidArgument, match="certificate_request"):
        await desk.enrolling.enroll(secret, "a", request_)
    await desk.enrolling.enroll(secret, "a", asked())


async def test_so_many_tokens_wait_and_no_more_until_some_have_ended(desk: Desk) -> None:
    for _ in range(MOST):
        await desk.enrolling.create(HOUR_S, "")
    with pytest.raises(NoCapacity, match=f"{MOST} join tokens"):
        await desk.enrolling.create(HOUR_S, "")
    desk.clock.advance(HOUR_S)
    await desk.enrolling.create(HOUR_S, "")


async def test_what_a_node_that_was_thrown_out_still_has_is_of_no_use(desk: Desk) -> None:
    secret, _ = await desk.enrolling.create(HOUR_S, "")
    key = new_key()
    await desk.enrolling.enroll(secret, "a", asked("a", key))
    await desk.enrolling.epochs.revoke("a")
    with pytest.raises(Unauthenticated, match="used already"):
        await desk.enrolling.enroll(secret, "a", asked("a", key))


async def test_a_node_that_has_a_certificate_is_not_a_new_one_though_it_has_not_joined_yet(desk: Desk) -> None:
    for number in range(2):
        secret, _ = await desk.enrolling.create(HOUR_S, "")
        if number:
            with pytest.raises(Forbidden, match='has a node "a"'):
                await desk.enrolling.enroll(secret, "a", asked())
        else:
            await desk.enrolling.enroll(secret, "a", asked())
    for_a, _ = await desk.enrolling.create(HOUR_S, "a")
    await desk.enrolling.enroll(for_a, "a", asked())
