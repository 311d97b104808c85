"""What is kept for readers, and in which pieces they get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from engines.model import Cause, End, FinishReason, Logprobs, PromptScored, Release, TokenLogprob, Tokens
from engines.service.echo import FULL, TEXT
from engines.service.log import Asked, Log
from engines.service.outcome import Outcome
from engines.service.reader import Reader
from tests.support.scripted_model import logprobs_of

PROMPT = (7, 8, 9)
END = End(FinishReason.LENGTH, 3, Release(0, 1, 1, 0, 0.0), queue_s=0.2, first_token_s=0.5)


def reader(log: Log) -> Reader:
    """Opens one that reads all there is, as whoever began the request does."""
    return log.read(log.first_positions(), wants_prompt=True)


def told(reader: Reader) -> list[Any]:
    """Takes all there is."""
    events: list[Any] = []
    while taken := reader.take():
        events += taken
    return events


def kinds(events: Sequence[Any]) -> list[str]:
    return [event.WhichOneof("event") for event in events]


def finish(log: Log, *ends: End) -> None:
    for end in ends:
        log.put(end)
    log.finish(Outcome(ends), before_submit_s=0.0, total_s=1.0)


def test_what_nobody_has_read_yet_is_one_delta_for_each_choice() -> None:
    log = Log(Asked(PROMPT, choice_count=2, sent_count=2))
    reading = reader(log)
    for position in range(100):
        for choice in (1, 0):
            log.put(Tokens(position, (position,), ("ab"[choice],), choice))
    first, second = told(reading)
    assert [(each.delta.choice, each.delta.text) for each in (first, second)] == [(0, "a" * 100), (1, "b" * 100)]
    assert list(second.delta.token_ids) == list(range(100))
    log.put(Tokens(100, (5, 6), ("c", "d"), 1))
    [more] = told(reading)
    assert (more.delta.first_position, list(more.delta.token_ids)) == (100, [5, 6])


@pytest.mark.parametrize("top", [None, 20])
def test_a_message_stays_small_however_far_its_reader_is_behind(top: int | None) -> None:
    count = 20_000
    log = Log(Asked(PROMPT, logprobs=top))
    reading = reader(log)
    for position in range(count):
        likely = () if top is None else (logprobs_of(position % 128, top),)
        log.put(Tokens(position, (position % 128,), ("x",), logprobs=likely))
    finish(log, END)
    messages = []
    while taken := reading.take():
        messages.append(taken)
    sizes = [sum(event.ByteSize() for event in message) for message in messages]
    assert max(sizes) < 256 * 1024
    ids = [token for message in messages for event in message for token in event.delta.token_ids]
    assert ids == [position % 128 for position in range(count)]
    scores = [score for message in messages for event in message for score in event.delta.logprobs]
    assert [each.chosen.token_id for each in scores] == ([] if top is None else ids)
    assert kinds(messages[-1])[-2:] == ["finished", "usage"]


def test_logprobs_that_only_the_engine_wanted_are_not_told() -> None:
    log = Log(Asked(PROMPT, choice_count=2, sent_count=1))
    reading = reader(log)
    log.put(Tokens(0, (5,), ("x",), logprobs=(logprobs_of(5, 0),)))
    log.put(Tokens(0, (6,), ("y",), 1, logprobs=(logprobs_of(6, 0),)))
    finish(log, END, replace(END, choice=1))
    assert not any(event.delta.logprobs for event in told(reading))


def likely(logprob: float) -> Logprobs:
    return Logprobs(TokenLogprob(5, logprob, 1), ())


def test_of_several_the_best_come_when_all_have_ended_and_are_numbered_anew() -> None:
    log = Log(Asked(PROMPT, choice_count=4, sent_count=2))
    reading = reader(log)
    # Choice 1 is likeliest by its sum, being short; choice 3 is by the mean.
    for choice, logprobs in enumerate([(-2.0, -2.0), (-1.5,), (-3.0, -0.5), (-1.0, -1.0)]):
        for position, logprob in enumerate(logprobs):
            log.put(Tokens(position, (choice,), ("abcd"[choice],), choice, (likely(logprob),)))
    for choice in range(3):
        log.put(replace(END, choice=choice))
    assert reading.take() == []
    log.put(replace(END, choice=3))
    ends = [replace(END, choice=choice) for choice in range(4)]
    log.finish(Outcome(ends), before_submit_s=0.0, total_s=1.0)
    events = told(reading)
    assert kinds(events) == ["delta", "finished", "delta", "finished", "usage"]
    assert [(event.delta.choice, event.delta.text) for event in events[:4:2]] == [(0, "dd"), (1, "b")]
    assert [event.finished.choice for event in events[1:4:2]] == [0, 1]
    assert events[-1].usage.output_token_count == 4 * END.output_token_count


def test_an_echo_comes_first_in_pieces() -> None:
    prompt, text = tuple(range(3 * FULL + 1)), "x" * (5 * TEXT + 1)
    log = Log(Asked(prompt, echo=text))
    reading = reader(log)
    log.put(Tokens(0, (5,), ("y",)))
    events = told(reading)
    pieces = [event.prompt for event in events[:-1]]
    assert [each.first_position for each in pieces] == [0, FULL, 2 * FULL, 3 * FULL, len(prompt), len(prompt)]
    assert tuple(token for each in pieces for token in each.token_ids) == prompt
    assert "".join(each.text for each in pieces) == text
    assert events[-1].delta.text == "y"


def test_no_delta_comes_before_a_prompt_that_is_to_be_scored() -> None:
    log = Log(Asked(PROMPT, choice_count=2, sent_count=2, scorer=0))
    reading = reader(log)
    log.put(Tokens(0, (5,), ("y",), choice=1))
    assert reading.take() == []
    log.put(PromptScored((logprobs_of(8, 1), logprobs_of(9, 1))))
    prompt, delta = told(reading)
    assert list(prompt.prompt.token_ids) == list(PROMPT)
    nothing, *scores = prompt.prompt.logprobs
    assert not nothing.HasField("chosen")
    assert [(each.chosen.token_id, len(each.top)) for each in scores] == [(8, 1), (9, 1)]
    assert prompt.prompt.text == ""
    assert delta.delta.choice == 1


def test_the_others_go_on_when_the_choice_that_was_to_score_the_prompt_ends_before() -> None:
    log = Log(Asked(PROMPT, choice_count=2, sent_count=2, scorer=0))
    reading = reader(log)
    log.put(Tokens(0, (5,), ("y",), choice=1))
    log.put(END)
    assert sorted(kinds(told(reading))) == ["delta", "finished"]


def test_a_long_prompt_is_scored_in_pieces() -> None:
    count = 3000
    log = Log(Asked(tuple(range(count)), scorer=0))
    reading = reader(log)
    log.put(PromptScored(tuple(logprobs_of(position % 128, 20) for position in range(1, count))))
    pieces = [event.prompt for event in told(reading)]
    assert len(pieces) > 10
    assert max(each.ByteSize() for each in pieces) < 256 * 1024
    assert [token for each in pieces for token in each.token_ids] == list(range(count))
    scores = [score for each in pieces for score in each.logprobs]
    assert [each.chosen.token_id for each in scores[1:]] == [position % 128 for position in range(1, count)]


def test_a_prompt_of_one_token_has_nothing_to_be_scored() -> None:
    log = Log(Asked((7,), scorer=0))
    reading = reader(log)
    [event] = told(reading)
    assert (list(event.prompt.token_ids), len(event.prompt.logprobs)) == ([7], 1)


@pytest.mark.parametrize(("echo", "first"), [("abc", ["prompt"]), (None, [])], ids=["an echo", "scores alone"])
def test_what_is_cancelled_before_its_prompt_was_scored_ends_all_the_same(echo: str | None, first: list[str]) -> None:
    log = Log(Asked(PROMPT, echo=echo, scorer=0))
    reading = reader(log)
    finish(log, replace(END, reason=FinishReason.CANCELLED, cause=Cause.CLIENT))
    assert kinds(told(reading)) == [*first, "finished", "usage"]


@pytest.mark.parametrize(
    "end",
    [
        replace(END, reason=FinishReason.FAILED, error=ValueError("no")),
        replace(END, reason=FinishReason.CANCELLED, cause=Cause.DEADLINE),
    ],
    ids=["a failure", "a deadline"],
)
def test_what_ends_with_an_error_has_neither_end_nor_usage(end: End) -> None:
    log = Log(Asked(PROMPT, choice_count=2, sent_count=2))
    reading = reader(log)
    log.put(Tokens(0, (5,), ("y",)))
    finish(log, end, replace(END, choice=1))
    events = told(reading)
    assert kinds(events) == ["delta", "finished"]
    assert events[-1].finished.choice == 1
