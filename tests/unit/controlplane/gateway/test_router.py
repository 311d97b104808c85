"""What a gateway's router makes of routes, time and what it is told."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.gateway.router import Router
from controlplane.gateway.routing.asked import Asked
from controlplane.gateway.routing.breaker import FIRST_OPEN_S, PROBE_S
from controlplane.gateway.routing.budget import MOST
from controlplane.gateway.routing.load import SETTLE_S
from controlplane.gateway.routing.warmth import WARM_UP_S
from controlplane.model import Route, Routes
from controlplane.routing_policies import ROUTING_POLICIES, RoutingPolicy
from tests.support.clock import FakeClock
from tests.support.routed import a_route, some_routes

PLAIN = Asked(token_count=100, max_tokens=100)


class Front:
    """A router, its routes and its clock."""

    def __init__(self, routes: Routes, seed: int = 1) -> None:
        self.routes, self.clock = routes, FakeClock()
        self.router = Router(lambda: self.routes, self.clock, random.Random(seed).random)
        self.router.follow()

    def tell(self, *routes: Route) -> None:
        """Tells it other routes."""
        self.routes = replace(self.routes, replicas={"chat": routes})
        self.router.follow()

    def pick(self, asked: Asked = PLAIN, tried: Collection[str] = ()) -> Route:
        """Picks where there is somebody."""
        picked = self.router.pick("chat", asked, tried)
        assert picked is not None
        return picked

    def counts(self, count: int, asked: Asked = PLAIN) -> Counter[int]:
        """Returns where requests go of which none ends."""
        found: Counter[int] = Counter()
        with contextlib.ExitStack() as flying:
            for _ in range(count):
                route = self.pick(asked)
                flying.enter_context(self.router.at(route, asked))
                found[route.index] += 1
        return found


def prompt(*pieces: int) -> Asked:
    hashes = tuple(hash(pieces[:end]) for end in range(1, len(pieces) + 1))
    counts = tuple(range(1000, 1000 * len(pieces) + 1, 1000))
    return Asked(1000 * len(pieces), 10, prefixes=hashes, prefix_token_counts=counts)


def test_where_nobody_is_ready_nobody_is_picked() -> None:
    front = Front(some_routes(2, is_ready=False))
    assert front.router.pick("chat", PLAIN) is None
    assert front.router.pick("other", PLAIN) is None


def test_requests_in_flight_are_spread_over_equal_replicas() -> None:
    assert set(Front(some_routes(3, "least_loaded")).counts(30).values()) == {10}
    assert set(Front(some_routes(2, "power_of_two")).counts(30).values()) == {15}
    assert set(Front(some_routes(3, "round_robin")).counts(30).values()) == {10}


def test_a_long_request_weighs_more_than_a_short_one() -> None:
    front = Front(some_routes(2))
    long, short = Asked(token_count=4000, max_tokens=100), Asked(token_count=100, max_tokens=10)
    busy = front.pick(long)
    with front.router.at(busy, long):
        assert busy.index not in front.counts(8, short)


def test_a_request_whose_prompt_is_done_weighs_less_and_one_that_ends_nothing() -> None:
    front = Front(some_routes(2))
    long, middle = Asked(token_count=4000, max_tokens=100), Asked(token_count=1000, max_tokens=100)
    first = front.pick(long)
    with front.router.at(first, long) as flight:
        other = front.pick(middle)
        assert other.index != first.index
        with front.router.at(other, middle):
            flight.told(1)
            assert front.pick(middle).index == first.index
            flight.told(99)
    with front.router.at(other, middle):
        assert front.pick(middle).index == first.index


def test_others_are_seen_in_reports_and_our_own_are_not_counted_twice() -> None:
    front = Front(some_routes(2))
    with front.router.at(front.routes.replicas["chat"][0], PLAIN):
        front.tell(a_route(0, running_count=1), a_route(1, running_count=3))
        assert front.pick().index == 0
    # Its report still holds ours, which has ended: for a moment that is nobody's.
    front.tell(a_route(0, running_count=1), a_route(1))
    assert front.counts(10) == {0: 5, 1: 5}
    front.clock.advance(3 * SETTLE_S)
    assert front.pick().index == 1


def test_a_stale_load_is_saturated() -> None:
    front = Front(Routes({"chat": (a_route(0, is_stale=True), a_route(1, running_count=60, waiting_count=90))}))
    assert set(front.counts(10)) == {1}


def test_a_replica_that_becomes_ready_gets_its_share_little_by_little() -> None:
    front = Front(some_routes(2, "least_loaded"))
    assert set(front.counts(20).values()) == {10}
    front.tell(*front.routes.replicas["chat"], a_route(2))
    assert front.counts(42)[2] == 2
    front.clock.advance(WARM_UP_S / 2)
    assert 6 <= front.counts(42)[2] <= 10
    front.clock.advance(WARM_UP_S)
    assert front.counts(42)[2] == 14


def test_a_gateway_that_starts_takes_all_that_are_there_for_warm() -> None:
    front = Front(some_routes(3, "least_loaded"))
    assert set(front.counts(30).values()) == {10}


def test_a_prompt_goes_where_its_beginning_has_been() -> None:
    front = Front(some_routes(4))
    asked = prompt(1, 2, 3)
    first = front.pick(asked)
    with front.router.at(first, asked):
        pass
    for number in range(10):
        assert front.pick(prompt(1, 2, 3, number + 10)).index == first.index
    with front.router.at(first, prompt(7, 8, 9)):
        assert front.pick(prompt(1, 2, 3)).index != first.index


def test_a_replica_that_failed_is_asked_last_until_a_probe_finds_it_well() -> None:
    front = Front(some_routes(2))
    bad, good = front.routes.replicas["chat"]
    front.router.failed(bad)
    assert {front.pick().index for _ in range(20)} == {good.index}
    assert front.pick(tried={good.engine_uuid}) == bad
    front.clock.advance(FIRST_OPEN_S)
    with front.router.at(good, Asked(token_count=9000)):
        probe = front.pick()
        assert probe == bad
        with front.router.at(probe, PLAIN):
            assert {front.pick().index for _ in range(20)} == {good.index}
            front.router.succeeded(bad)
            assert front.pick() == bad


def test_a_probe_that_ends_with_no_outcome_leaves_room_for_another() -> None:
    front = Front(some_routes(1))
    [only] = front.routes.replicas["chat"]
    other = a_route(1, running_count=50)
    front.tell(only, other)
    front.clock.advance(WARM_UP_S)
    front.router.failed(only)
    front.clock.advance(FIRST_OPEN_S)
    with front.router.at(front.pick(), PLAIN):
        assert front.pick() == other
    assert front.pick() == only
    assert front.pick() == other  # the one that was just picked may never have been sent
    front.clock.advance(PROBE_S)
    assert front.pick() == only


def test_the_caller_s_own_errors_leave_a_replica_in() -> None:
    front = Front(some_routes(2))
    bad = front.routes.replicas["chat"][0]
    for _ in range(100):
        front.router.succeeded(bad)
    assert {front.pick().index for _ in range(50)} == {0, 1}


def test_retries_are_budgeted_for_each_deployment() -> None:
    front = Front(Routes({"chat": (a_route(0),), "other": ()}))
    assert sum(front.router.may_retry("chat") for _ in range(100)) == MOST
    assert front.router.may_retry("other")
    for _ in range(5):
        front.pick()
    assert front.router.may_retry("chat")
    assert not front.router.may_retry("chat")
    front.pick(tried={"e9"})  # a retry earns none
    assert not front.router.may_retry("chat")


def test_one_that_goes_on_may_insist_on_an_engine_that_gives_the_same() -> None:
    front = Front(Routes({"chat": (a_route(0, fingerprint="f"), a_route(1, fingerprint="g"))}))
    asked = Asked(fingerprint="f", rendezvous_key="r", is_exact_only=True)
    assert front.pick(asked).index == 0
    front.router.failed(front.routes.replicas["chat"][0])
    assert front.pick(asked).index == 0
    assert front.router.pick("chat", asked, {"e0"}) is None
    front.tell(a_route(0, fingerprint="f"), a_route(1, fingerprint=""))
    assert front.router.pick("chat", asked, {"e0"}) == front.routes.replicas["chat"][1]
    assert front.pick(replace(asked, is_exact_only=False), {"e0"}).index == 1


def test_two_gateways_send_one_that_goes_on_to_the_same_replica() -> None:
    fronts = [Front(some_routes(5), seed) for seed in (1, 2)]
    for number in range(30):
        asked = Asked(rendezvous_key=f"request {number}")
        assert len({front.pick(asked).index for front in fronts}) == 1


def test_gateways_that_know_that_prompts_begin_alike_send_a_new_beginning_to_the_same_replica() -> None:
    fronts = [Front(some_routes(6), seed) for seed in (1, 2, 3)]

    def long(number: int) -> Asked:
        return replace(prompt(number), front=f"front {number}")

    for front in fronts:
        for _ in range(20):
            with front.router.at(front.pick(long(0)), long(0)):
                pass
    for number in range(1, 20):
        assert len({front.pick(long(number)).index for front in fronts}) == 1


def test_an_engine_that_is_gone_is_forgotten_once_its_requests_have_ended() -> None:
    front = Front(some_routes(2))
    gone = front.routes.replicas["chat"][0]
    with front.router.at(gone, PLAIN) as flight:
        front.router.failed(gone)
        front.tell(a_route(1))
        flight.told(3)
    front.tell()
    front.tell(gone)  # the same again, and nothing is held against it
    front.tell(gone, a_route(1))
    assert front.pick(tried={"e1"}) == gone


@settings(max_examples=200)
@given(
    st.sampled_from(ROUTING_POLICIES),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=6),
    st.sets(st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
    st.sampled_from([PLAIN, prompt(1, 2), Asked(session_key="s"), Asked(rendezvous_key="r", fingerprint="f")]),
    st.integers(0, 2**32),
)
def test_nobody_is_picked_who_is_not_ready_or_was_tried_nor_who_failed_if_there_is_another(
    policy: RoutingPolicy,
    facts: list[tuple[bool, bool, bool]],
    tried: set[int],
    failed: set[int],
    asked: Asked,
    seed: int,
) -> None:
    routes = tuple(
        a_route(index, is_ready=ready, is_stale=stale, fingerprint="f" if same else "g")
        for index, (ready, stale, same) in enumerate(facts)
    )
    front = Front(Routes({"chat": routes}, policies={"chat": policy}), seed)
    for each in routes:
        if each.index in failed:
            front.router.failed(each)
    may = {each.index for each in routes if each.is_ready and each.index not in tried}
    picked = front.router.pick("chat", asked, {f"e{index}" for index in tried})
    if not may:
        assert picked is None
    else:
        assert picked is not None
        assert picked.index in (may - failed or may)
        again = Front(front.routes, seed)
        for each in routes:
            if each.index in failed:
                again.router.failed(each)
        assert again.router.pick("chat", asked, {f"e{index}" for index in tried}) == picked
