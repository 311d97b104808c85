"""Which of the replicas that may be asked a request goes to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.routing.asked import FRONT_TOKENS, Asked
from controlplane.gateway.routing.choice import MOST_MORE, MOST_TIMES, Question, Standing, choose
from controlplane.model import Route
from controlplane.routing_policies import ROUTING_POLICIES, RoutingPolicy
from tests.support.routed import a_route

COST = 100.0
DRAWS = st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2)
STANDINGS = st.lists(
    st.builds(
        Standing,
        st.floats(0, 1e6),
        st.floats(0.01, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=9,
)
POLICIES = st.sampled_from(ROUTING_POLICIES)


def question(
    asked: Asked = Asked(),  # noqa: B008
    cached: Mapping[str, int] | None = None,
    turn: int = 0,
    fronts_repeat: bool = False,
) -> Question:
    return Question(asked, lambda cached: max(0.0, COST - cached), cached or {}, fronts_repeat, turn)


def chosen(
    policy: RoutingPolicy,
    standings: Sequence[Standing],
    asked: Question | None = None,
    draws: tuple[float, float] = (0.0, 0.0),
) -> int:
    """Returns the index of the replica that is chosen among some with these standings."""
    routes = [a_route(index) for index in range(len(standings))]
    return choose(policy, routes, asked or question(), lambda route: standings[route.index], draws).index


def busy(*tokens: float) -> list[Standing]:
    return [Standing(each) for each in tokens]


def test_of_two_that_are_drawn_the_less_busy_one_is_taken() -> None:
    assert chosen("power_of_two", busy(5, 4, 0), draws=(0.0, 0.0)) == 1
    assert chosen("power_of_two", busy(5, 4, 6), draws=(0.0, 0.9)) == 0


def test_of_two_replicas_both_are_looked_at() -> None:
    for draw in (0.0, 0.49, 0.5, 0.99):
        assert chosen("power_of_two", busy(5, 4), draws=(draw, draw)) == 1


@given(STANDINGS, DRAWS)
def test_least_loaded_takes_one_than_which_none_is_less_busy(
    standings: list[Standing], draws: tuple[float, float]
) -> None:
    index = chosen("least_loaded", standings, draws=draws)
    assert standings[index].after(COST) == min(each.after(COST) for each in standings)


@given(STANDINGS, DRAWS)
def test_power_of_two_never_takes_the_busiest_of_all_if_that_is_one_alone(
    standings: list[Standing], draws: tuple[float, float]
) -> None:
    most = max(each.after(COST) for each in standings)
    if len(standings) > 1 and sum(each.after(COST) == most for each in standings) == 1:
        assert standings[chosen("power_of_two", standings, draws=draws)].after(COST) < most


def test_round_robin_takes_turns_whatever_they_have_to_do() -> None:
    taken = [chosen("round_robin", busy(9, 0, 5), question(turn=turn)) for turn in range(6)]
    assert taken == [0, 1, 2, 0, 1, 2]


def test_a_replica_with_little_room_is_busier_than_its_tokens_say() -> None:
    assert chosen("least_loaded", [Standing(50, room=0.25), Standing(400)]) == 1


def test_a_load_that_is_stale_counts_as_saturated() -> None:
    assert chosen("least_loaded", [Standing(0, is_stale=True), Standing(1e9)]) == 1
    assert chosen("least_loaded", [Standing(7, is_stale=True), Standing(3, is_stale=True)]) == 1


@given(POLICIES, STANDINGS, st.integers(0, 99), DRAWS)
def test_the_same_facts_and_random_numbers_choose_the_same(
    policy: RoutingPolicy, standings: list[Standing], turn: int, draws: tuple[float, float]
) -> None:
    first = chosen(policy, standings, question(turn=turn), draws)
    assert first == chosen(policy, standings, question(turn=turn), draws)


@pytest.mark.parametrize("policy", ROUTING_POLICIES)
def test_equals_share_what_comes(policy: RoutingPolicy) -> None:
    draw = random.Random(7)
    taken = Counter(
        chosen(policy, busy(0, 0, 0, 0, 0), question(turn=turn), (draw.random(), draw.random())) for turn in range(2000)
    )
    assert sorted(taken) == [0, 1, 2, 3, 4]
    assert max(taken.values()) < 1.25 * 400


@given(st.integers(1, 6), st.integers(0, 60), st.integers(0, 2**32))
def test_a_burst_is_spread_evenly_by_least_loaded_over_equals(replicas: int, requests: int, seed: int) -> None:
    draw, tokens = random.Random(seed), [0.0] * replicas
    for _ in range(requests):
        tokens[chosen("least_loaded", busy(*tokens), draws=(draw.random(), draw.random()))] += COST
    assert max(tokens) - min(tokens) <= COST


@given(st.integers(2, 8), st.integers(0, 2**32))
def test_a_burst_is_spread_nearly_so_by_two_that_are_drawn(replicas: int, seed: int) -> None:
    draw, tokens = random.Random(seed), [0.0] * replicas
    for _ in range(40 * replicas):
        tokens[chosen("power_of_two", busy(*tokens), draws=(draw.random(), draw.random()))] += COST
    assert max(tokens) <= 48 * COST


# Prompts and sessions.


def test_a_prompt_goes_where_it_is_cached_if_that_saves_more_than_others_have_to_do() -> None:
    assert chosen("least_loaded", busy(50, 0, 0), question(cached={"e0": 80})) == 0
    assert chosen("least_loaded", busy(50, 0, 0), question(cached={"e0": 40})) == 1
    assert chosen("least_loaded", busy(50, 30, 0), question(cached={"e0": 80, "e1": 90})) == 1


def test_a_prompt_goes_where_it_is_cached_though_that_was_not_drawn() -> None:
    assert chosen("power_of_two", busy(5, 5, 5, 5), question(cached={"e3": 80}), (0.0, 0.0)) == 3


def test_requests_of_a_session_go_to_the_same_replica_while_it_is_not_much_busier() -> None:
    asked = question(Asked(session_key="ann"))
    home = chosen("least_loaded", busy(0, 0, 0, 0), asked)
    loads = [0.0, 0.0, 0.0, 0.0]
    loads[home] = MOST_MORE * COST
    for policy in ("least_loaded", "power_of_two"):
        for draw in (0.0, 0.3, 0.6, 0.9):
            assert chosen(policy, busy(*loads), asked, (draw, draw)) == home
    loads[home] += 1
    assert chosen("least_loaded", busy(*loads), asked) != home


def test_sessions_are_spread() -> None:
    homes = Counter(
        chosen("least_loaded", busy(0, 0, 0, 0), question(Asked(session_key=f"s{number}"))) for number in range(400)
    )
    assert sorted(homes) == [0, 1, 2, 3]
    assert max(homes.values()) < 150


def test_a_front_that_nobody_is_known_to_have_goes_where_all_gateways_would_send_it_if_fronts_repeat() -> None:
    idle, draws = busy(0, 0, 0, 0), [(0.0, 0.0), (0.3, 0.3), (0.6, 0.9), (0.9, 0.1)]

    def taken(asked: Question) -> set[int]:
        return {chosen("power_of_two", idle, asked, each) for each in draws}

    for front in ("a", "b", "c", "d"):
        asked = Asked(front=front)
        [home] = taken(question(asked, fronts_repeat=True))
        assert len(taken(question(asked))) > 1
        known = (home + 1) % 4
        assert taken(question(asked, {f"e{known}": FRONT_TOKENS}, fronts_repeat=True)) == {known}


def test_round_robin_heeds_neither() -> None:
    asked = question(Asked(session_key="ann"), {"e0": 80, "e1": 80})
    assert chosen("round_robin", busy(0, 0, 0), asked) == 0
    assert chosen("round_robin", busy(0, 0, 0), question(Asked(session_key="ann"), {"e0": 80}, turn=2)) == 2


@given(
    st.sampled_from(["power_of_two", "least_loaded"]),
    STANDINGS,
    st.dictionaries(st.sampled_from([f"e{index}" for index in range(9)]), st.integers(0, 100)),
    st.builds(Asked, session_key=st.sampled_from(["", "ann", "bob"]), front=st.sampled_from(["", "a", "b"])),
    DRAWS,
)
def test_whoever_is_preferred_is_within_the_bound_of_whom_would_be_taken_else(
    policy: RoutingPolicy,
    standings: list[Standing],
    cached: dict[str, int],
    asked: Asked,
    draws: tuple[float, float],
) -> None:
    preferred = chosen(policy, standings, question(asked, cached, fronts_repeat=True), draws)
    other = chosen(policy, standings, question(), draws)
    (stale, load), (other_stale, other_load) = standings[preferred].after(0), standings[other].after(0)
    assert preferred == other or (not stale and other_stale) or stale == other_stale
    if preferred != other and stale == other_stale:
        assert load <= MOST_TIMES * other_load + MOST_MORE * COST / standings[other].room


# Those that go on where another engine was.


def with_fingerprints(*fingerprints: str) -> list[Route]:
    return [a_route(index, fingerprint=each) for index, each in enumerate(fingerprints)]


@given(POLICIES, STANDINGS, DRAWS, st.text(max_size=8))
def test_one_that_goes_on_goes_to_the_same_replica_whoever_asks(
    policy: RoutingPolicy, standings: list[Standing], draws: tuple[float, float], key: str
) -> None:
    asked = question(Asked(rendezvous_key=f"request {key}"))
    assert chosen(policy, standings, asked, draws) == chosen("power_of_two", busy(*[0.0] * len(standings)), asked)


def test_one_that_goes_on_goes_to_an_engine_that_gives_the_same_if_there_is_one() -> None:
    for number in range(20):
        asked = question(Asked(fingerprint="f", rendezvous_key=f"r{number}"))
        picked = choose("power_of_two", with_fingerprints("g", "f", "g"), asked, lambda _: Standing(0), (0.5, 0.5))
        assert picked.fingerprint == "f"
    others = choose(
        "power_of_two", with_fingerprints("g", "g"), question(Asked(fingerprint="f")), lambda _: Standing(0), (0, 0)
    )
    assert others.fingerprint == "g"
