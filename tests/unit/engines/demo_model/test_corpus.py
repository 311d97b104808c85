import functools
import itertools
import operator
import re
from collections import Counter
from random import Random

import pytest

from engines.demo_model.corpus import arithmetic, conversations, stories
from engines.demo_model.corpus.off_topic import REFUSAL
from engines.demo_model.corpus.turns import Conversation, Turn

_EQUATION = re.compile(r"((?:\d+ [-+*] )+\d+) = (-?\d+)")
_SUM = re.compile(r"(\d+) ([-+*]) (\d+) = (-?\d+)")
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def _corpus(seed: int, count: int = 4_000) -> list[Conversation]:
    random = Random(seed)
    return [conversations.conversation(random) for _ in range(count)]


def _turns(seed: int) -> list[Turn]:
    return list(itertools.chain.from_iterable(conversation.turns for conversation in _corpus(seed)))


def test_a_seed_gives_the_same_corpus_every_time() -> None:
    assert _corpus(1) == _corpus(1)
    assert _corpus(1) != _corpus(2)


def test_every_equation_that_an_answer_or_a_thought_states_is_right() -> None:
    stated = [match for turn in _turns(3) for match in _EQUATION.findall(f"{turn.thought} {turn.answer}")]

    assert len(stated) > 2_000
    for calculation, result in stated:
        assert _calculated(calculation) == int(result), calculation


def _calculated(calculation: str) -> int:
    first, *rest = calculation.split(" ")
    steps = zip(rest[::2], rest[1::2], strict=True)
    return functools.reduce(lambda total, step: _OPERATIONS[step[0]](total, int(step[1])), steps, int(first))


@pytest.mark.parametrize("sign", ["+", "-"])
def test_training_never_asks_for_a_held_out_pair(sign: str) -> None:
    asked = [match for turn in _turns(4) for match in _SUM.findall(turn.answer) if match[1] == sign]

    assert asked
    assert not any(arithmetic.is_held_out(int(first), int(second)) for first, _, second, _ in asked)


def test_one_pair_in_ten_is_held_out_whatever_its_last_digits() -> None:
    held_out = Counter(
        (first % 10, second % 10)
        for first in range(100)
        for second in range(100)
        if arithmetic.is_held_out(first, second)
    )

    assert 900 < held_out.total() < 1_100
    assert len(held_out) == 100
    assert max(held_out.values()) < 50


def test_a_held_out_sum_is_of_a_held_out_pair() -> None:
    random = Random(5)
    for _ in range(50):
        match = _SUM.fullmatch(arithmetic.addition(random, held_out=True).answer.rstrip("."))
        assert match is not None
        assert arithmetic.is_held_out(int(match[1]), int(match[3]))


def test_ten_to_fifteen_of_a_hundred_turns_are_honest_refusals() -> None:
    turns = _turns(6)
    refusals = sum(turn.answer.startswith(REFUSAL) for turn in turns)

    assert 0.10 < refusals / len(turns) < 0.15


def test_both_modes_and_every_task_are_in_the_corpus() -> None:
    corpus = _corpus(7)

    assert {conversation.task for conversation in corpus} == {*conversations.TASKS, conversations.NAME_RECALL}
    assert 0.45 < sum(conversation.is_thinking for conversation in corpus) / len(corpus) < 0.55


def test_every_turn_accepts_its_own_answer_and_has_a_thought() -> None:
    for turn in _turns(8):
        assert turn.accepts(turn.answer), turn
        assert turn.thought.strip()
        assert turn.answer == turn.answer.strip()


def test_a_story_must_hold_the_name_and_the_animal_that_were_asked_for() -> None:
    random = Random(9)
    asked = [turn for turn in (stories.story(random) for _ in range(200)) if " named " in turn.prompt]

    assert asked
    for turn in asked:
        assert turn.must_hold is not None
        assert not turn.accepts("Once upon a time, there was nobody.")
