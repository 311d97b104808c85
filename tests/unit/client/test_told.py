"""What is told of a run of tokens: everything once."""

import random

import pytest

from roundhouse.client import OutOfOrder, TokensDiffer
from roundhouse.client.told import Told
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.v1 import generation_pb2

WORDS = [f" word{number}" for number in range(40)]


def piece(first: int, end: int) -> generation_pb2.Delta:
    return generation_pb2.Delta(
        first_position=first,
        token_ids=range(first, end),
        text="".join(WORDS[first:end]),
        logprobs=[generation_pb2.Logprobs(chosen={"token_id": each}) for each in range(first, end)],
    )


@pytest.mark.parametrize("seed", range(50))
def test_whatever_pieces_come_again_each_position_is_told_once(seed: int) -> None:
    draw = random.Random(seed)
    told, ids, text, scored = Told("choice 0"), list[int](), "", list[int]()
    starts = [0]  # where pieces began that were told; what comes again begins there
    while told.count < len(WORDS):
        first = draw.choice(starts)
        new = told.take(piece(first, draw.randint(first + 1, len(WORDS))))
        if new is not None:
            assert new.first_position == len(ids)
            ids += new.token_ids
            text += new.text
            scored += [each.chosen.token_id for each in new.logprobs]
            starts.append(told.count)
    assert ids == scored == list(range(len(WORDS)))
    assert text == "".join(WORDS)
    told.check(chain(EMPTY, ids))


def test_a_gap_is_an_error_that_says_where() -> None:
    told = Told("choice 1")
    told.take(piece(0, 3))
    with pytest.raises(OutOfOrder, match="choice 1 was told up to position 3, and goes on at 5"):
        told.take(piece(5, 6))


def test_a_piece_that_cannot_be_cut_is_an_error() -> None:
    told = Told("choice 0")
    told.take(piece(0, 4))
    with pytest.raises(OutOfOrder, match="a piece from 2 on cannot be cut"):
        told.take(piece(2, 6))


def test_another_chain_is_an_error_if_everything_was_told_here() -> None:
    told = Told("choice 0", ids=[0, 1])
    told.take(piece(2, 4))
    told.check(chain(EMPTY, range(4)))
    with pytest.raises(TokensDiffer, match="the 4 tokens of choice 0"):
        told.check(chain(EMPTY, range(5)))
    elsewhere = Told("choice 0", count=2)
    elsewhere.take(piece(2, 4))
    elsewhere.check(chain(EMPTY, range(5)))


def test_text_behind_the_last_token_comes_once() -> None:
    prompt = Told("the prompt", is_chained=False)
    first = generation_pb2.Prompt(token_ids=[1, 2], text="be")
    rest = generation_pb2.Prompt(first_position=2, text="gin")
    assert [prompt.take(each) for each in (first, rest, rest)] == [first, rest, rest]  # two pieces of the same words
    for _ in range(2):
        prompt.begin_again()
        assert [prompt.take(each) for each in (first, rest, rest)] == [None, None, None]
