"""What is read off a request to route it."""

from __future__ import annotations

import random
import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.asking import LEAST_TOKENS, MOST_PIECES, asked_of
from roundhouse.v1.generation_pb2 import (
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_USER,
    ContentPart,
    Message,
    RequestOptions,
    Resume,
    ResumeChoice,
    Role,
    SamplingParams,
    TokenIds,
)
from roundhouse.v1.inference_service_pb2 import ChatRequest, GenerateRequest

NAMED = "9a223b38268f4ac44b514ee614477a4a"


def generate(*texts: str, **fields: object) -> GenerateRequest:
    return GenerateRequest(prompt=[ContentPart(text=each) for each in texts], **fields)  # type: ignore[arg-type]


def chat(*said: tuple[Role, str]) -> ChatRequest:
    return ChatRequest(messages=[Message(role=role, content=[ContentPart(text=text)]) for role, text in said])


def letters(count: int, seed: int = 1) -> str:
    return "".join(random.Random(seed).choices(string.ascii_letters, k=count))


def in_common(a: GenerateRequest | ChatRequest, b: GenerateRequest | ChatRequest) -> int:
    """Returns how many tokens of two prompts are taken to be the same."""
    one, other = asked_of(a), asked_of(b)
    same = 0
    for prefix, count, another in zip(one.prefixes, one.prefix_token_counts, other.prefixes, strict=False):
        if prefix != another:
            break
        same = count
    return same


def test_tokens_are_estimated_by_letters_and_ids_are_counted() -> None:
    assert asked_of(generate("x" * 400)).token_count == 100
    assert asked_of(generate("字" * 300)).token_count == 200
    ids = GenerateRequest(prompt=[ContentPart(token_ids=TokenIds(ids=range(70)))])
    assert asked_of(ids).token_count == 70


def test_prompts_that_begin_alike_have_their_beginning_in_common() -> None:
    front = letters(4096)
    assert in_common(generate(front + letters(900, 2)), generate(front + letters(300, 3))) == 1024
    assert in_common(generate(front), generate("x" + front)) == 0
    ids = list(range(1000))
    a = GenerateRequest(prompt=[ContentPart(token_ids=TokenIds(ids=ids))])
    b = GenerateRequest(prompt=[ContentPart(token_ids=TokenIds(ids=[*ids[:700], 7]))])
    assert in_common(a, b) == 640


def test_a_turn_of_a_conversation_has_all_that_went_before_in_common_with_the_next() -> None:
    first = [(ROLE_SYSTEM, letters(300)), (ROLE_USER, letters(300, 3))]
    then = [*first, (ROLE_ASSISTANT, letters(500, 2)), (ROLE_USER, "Go on.")]
    whole = asked_of(chat(*first)).token_count
    assert whole - LEAST_TOKENS < in_common(chat(*first), chat(*then)) <= whole


def test_a_beginning_that_is_hardly_longer_than_nothing_is_none() -> None:
    assert asked_of(generate("Once upon")).prefixes == ()
    assert asked_of(chat((ROLE_SYSTEM, "Be brief."), (ROLE_USER, "Who are you?"))).prefixes == ()


def test_who_speaks_makes_a_difference() -> None:
    long = letters(500)
    assert in_common(chat((ROLE_USER, long)), chat((ROLE_SYSTEM, long))) == 0
    assert in_common(chat((ROLE_USER, "a"), (ROLE_USER, long)), chat((ROLE_USER, "a" + long))) == 0


@pytest.mark.parametrize("length", [0, 1, 256, 100_000, 1_000_000])
def test_a_prompt_of_any_length_is_cut_into_a_bounded_number_of_pieces(length: int) -> None:
    asked = asked_of(generate(letters(length)))
    assert len(asked.prefixes) == len(asked.prefix_token_counts) <= MOST_PIECES
    assert asked.token_count == length // 4
    many = asked_of(chat(*[(ROLE_USER, "yes")] * 4096))
    assert len(many.prefixes) == MOST_PIECES
    assert many.token_count > 4096 * 4


@given(st.lists(st.text(max_size=3000), max_size=5))
def test_counts_of_prefixes_rise_by_what_is_worth_it_up_to_the_whole(texts: list[str]) -> None:
    asked = asked_of(generate(*texts))
    counts = [0, *asked.prefix_token_counts]
    assert all(after - before >= LEAST_TOKENS for before, after in pairwise(counts))
    assert counts[-1] <= asked.token_count
    assert asked == asked_of(generate(*texts))


def test_the_front_of_a_long_prompt_has_a_name_that_every_process_gives_it() -> None:
    front = "abcdefgh" * 256
    assert asked_of(generate(front + "x")).front == asked_of(generate(front + "yyy")).front == NAMED
    assert asked_of(generate(front[:-1])).front == ""
    assert asked_of(generate("x" + front)).front not in ("", NAMED)
    said = asked_of(chat((ROLE_USER, front), (ROLE_ASSISTANT, "yes"))).front
    assert said == asked_of(chat((ROLE_USER, front), (ROLE_ASSISTANT, "no"))).front
    assert said not in ("", asked_of(chat((ROLE_SYSTEM, front))).front)
    assert asked_of(generate("\u5b57" * 2000)).front != ""


def test_choices_session_and_the_most_tokens_are_taken_over() -> None:
    sampling, options = SamplingParams(n=2, best_of=5, max_tokens=9), RequestOptions(session_key="ann")
    asked = asked_of(generate("x", sampling=sampling, options=options))
    assert (asked.choice_count, asked.session_key, asked.max_tokens) == (5, "ann", 9)
    plain = asked_of(generate("x"))
    assert (plain.choice_count, plain.session_key, plain.max_tokens) == (1, "", None)


def test_of_one_that_goes_on_the_output_so_far_is_read_again_and_less_is_to_come() -> None:
    resume = Resume(
        prompt_token_ids=TokenIds(ids=range(100)),
        choices=[ResumeChoice(choice=0, output_token_ids=TokenIds(ids=range(30)))],
    )
    asked = asked_of(generate(sampling=SamplingParams(max_tokens=50), options=RequestOptions(resume=resume)))
    assert (asked.token_count, asked.max_tokens) == (130, 20)
