"""What prompt lookup guesses."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.loop.ngram import NGrams


def propose(proposer: NGrams, ids: list[int], most: int = 4, name: str = "a") -> list[int]:
    [guess] = proposer.propose([(name, ids)], most)
    return list(guess)


@pytest.mark.parametrize(
    ("ids", "guess"),
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], [4, 5, 6, 1]),
        ([1, 2, 9, 9, 1, 2, 7, 7, 7, 7, 1, 2], [7, 7, 7, 7]),
        ([1, 2, 3, 8, 8, 8, 2, 3, 7, 7, 7, 7, 1, 2, 3], [8, 8, 8, 2]),
        ([5, 6, 7, 5, 6], [7, 5, 6, 7]),
        ([4, 4, 4], [4, 4, 4, 4]),
        ([1, 2, 3, 4], []),
        ([1], []),
    ],
    ids=["seen before", "the latest place", "the longest match", "a period", "one id again and again", "new", "short"],
)
def test_an_output_goes_on_as_it_went_on_before(ids: list[int], guess: list[int]) -> None:
    assert propose(NGrams(longest=3, shortest=2), ids) == guess


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.lists(st.integers(1, 60), max_size=5),
    st.integers(1, 6),
)
def test_it_makes_no_difference_when_it_was_asked_before(ids: list[int], asked_at: list[int], most: int) -> None:
    asked_often, asked_once = NGrams(longest=3, shortest=1), NGrams(longest=3, shortest=1)
    for count in sorted(asked_at):
        propose(asked_often, ids[:count])
    guess = propose(asked_often, ids, most)
    assert guess == propose(asked_once, ids, most)
    assert guess == by_search(ids, most)


def by_search(ids: list[int], most: int) -> list[int]:
    for length in (3, 2, 1):
        for end in range(len(ids) - 1, length - 1, -1):
            if ids[end - length : end] == ids[-length:]:
                guess = ids[end : end + most]
                while len(guess) < most:
                    guess.append(guess[end - len(ids)])
                return guess
    return []


def test_sequences_do_not_mix_and_what_is_forgotten_is_gone() -> None:
    proposer = NGrams(longest=2, shortest=2)
    seen = [1, 2, 3, 1, 2]
    assert [list(each) for each in proposer.propose([("a", seen), ("b", [9, 1, 2])], 1)] == [[3], []]
    proposer.forget("a")
    proposer.forget("never seen")
    assert propose(proposer, [1, 2]) == []


def test_what_is_kept_of_a_long_sequence_is_bounded() -> None:
    chance = random.Random(1)
    proposer = NGrams(longest=3, shortest=1, indexed=50)
    ids = [7, 8, 9]
    for _ in range(300):
        ids.append(chance.randrange(1000))
        propose(proposer, ids)
    assert propose(proposer, [*ids, 7, 8]) == []  # that is too long ago
    index = proposer._indexes["a"]
    assert all(len(ends) <= 50 for _, ends in index._ends)
