"""Which engines have which beginnings of prompts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.routing.asked import Asked
from controlplane.gateway.routing.prefixes import MOST_HOLDERS, Prefixes


def prompt(*pieces: int) -> Asked:
    """Returns a prompt of such pieces, of ten tokens each."""
    hashes = tuple(hash(pieces[:end]) for end in range(1, len(pieces) + 1))
    return Asked(10 * len(pieces), prefixes=hashes, prefix_token_counts=tuple(range(10, 10 * len(pieces) + 1, 10)))


def test_an_engine_has_of_a_prompt_what_it_has_seen_of_its_beginning() -> None:
    prefixes = Prefixes()
    prefixes.note(prompt(1, 2, 3), "a")
    prefixes.note(prompt(1, 9), "b")
    assert prefixes.cached(prompt(1, 2, 3, 4)) == {"a": 30, "b": 10}
    assert prefixes.cached(prompt(1, 9, 3)) == {"a": 10, "b": 20}
    assert prefixes.cached(prompt(2, 3)) == {}
    assert prefixes.cached(prompt()) == {}


def test_of_a_prefix_that_all_have_the_newest_are_remembered() -> None:
    prefixes = Prefixes()
    for number in range(MOST_HOLDERS + 3):
        prefixes.note(prompt(1), str(number))
    assert sorted(prefixes.cached(prompt(1))) == sorted(str(number) for number in range(3, MOST_HOLDERS + 3))


def test_what_is_forgotten_first_is_the_end_of_what_was_used_the_longest_ago() -> None:
    prefixes = Prefixes(most=4)
    prefixes.note(prompt(1, 2), "a")
    prefixes.note(prompt(3, 4), "b")
    prefixes.note(prompt(1, 5), "c")
    assert prefixes.cached(prompt(1, 2)) == {"a": 10, "c": 10}
    assert prefixes.cached(prompt(3, 4)) == {"b": 20}


PROMPTS = st.lists(st.integers(0, 2), max_size=5).map(lambda pieces: prompt(*pieces))


@given(st.lists(st.tuples(PROMPTS, st.sampled_from("ab")), max_size=40), st.integers(1, 20), PROMPTS)
def test_it_stays_within_its_bound_and_never_tells_of_more_than_was_seen(
    seen: list[tuple[Asked, str]], most: int, asked: Asked
) -> None:
    prefixes = Prefixes(most)
    for each, engine in seen:
        prefixes.note(each, engine)
        assert len(prefixes) <= most
    for engine, count in prefixes.cached(asked).items():
        assert any(
            who == engine and each.prefixes[: count // 10] == asked.prefixes[: count // 10] for each, who in seen
        )
