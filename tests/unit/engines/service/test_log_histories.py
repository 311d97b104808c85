"""Whatever comes when, and whoever reads how far: each reader gets every position once, in order, without a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from engines.model import Cause, End, FinishReason, Release, Reread, Tokens
from engines.service.log import Asked, Log
from engines.service.outcome import Outcome
from engines.service.reader import Reader
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.errors import TooLong
from tests.support.scripted_model import logprobs_of

END = End(FinishReason.LENGTH, 0, Release(0, 1, 1, 0, 0.0))


class Told:
    """What one reader was given, having checked that it fits what came before."""

    def __init__(self, reader: Reader, positions: Sequence[int]) -> None:
        self.reader = reader
        self.first = list(positions)
        self.ids: list[list[int]] = [[] for _ in positions]
        self.texts = [""] * len(positions)
        self.finished: dict[int, Any] = {}
        self.usage: Any = None

    def take(self) -> bool:
        events = self.reader.take()
        for event in events:
            assert self.usage is None
            match event.WhichOneof("event"):
                case "delta":
                    self._take_delta(event.delta)
                case "finished":
                    assert event.finished.choice not in self.finished
                    self.finished[event.finished.choice] = event.finished
                case "usage":
                    self.usage = event.usage
        return bool(events)

    def _take_delta(self, delta: Any) -> None:
        assert delta.choice not in self.finished
        assert delta.first_position == self.first[delta.choice] + len(self.ids[delta.choice])
        self.ids[delta.choice] += delta.token_ids
        self.texts[delta.choice] += delta.text
        if delta.logprobs:
            assert [each.chosen.token_id for each in delta.logprobs] == list(delta.token_ids)


def text_of(choice: int, position: int) -> str:
    return f"{choice}:{position};" if position % 3 else ""  # some tokens say nothing


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_each_reader_gets_the_whole_from_where_it_begins(data: DataObject) -> None:
    count = data.draw(st.integers(1, 3), label="choices")
    top = data.draw(st.sampled_from([None, 0, 2]), label="logprobs")
    limit = data.draw(st.sampled_from([1, 8, 40, 65_536]), label="limit")
    given_counts = [data.draw(st.integers(0, 5), label="given") for _ in range(count)]
    lengths = [before + data.draw(st.integers(0, 60), label="length") for before in given_counts]
    resumed = [tuple(range(before)) for before in given_counts]
    log = Log(Asked((1, 2), count, count, logprobs=top, resumed=resumed), limit=limit)
    came = list(given_counts)
    is_reread = [before == 0 for before in given_counts]
    ended: set[int] = set()
    readers: list[Told] = []
    while len(ended) < count:
        match data.draw(st.sampled_from(["come", "come", "come", "open", "take", "take", "close"])):
            case "come":
                choice = data.draw(st.sampled_from([each for each in range(count) if each not in ended]))
                if not is_reread[choice]:
                    is_reread[choice] = True
                    log.put(Reread(tuple(text_of(choice, each) for each in range(came[choice])), choice))
                elif came[choice] < lengths[choice]:
                    end = data.draw(st.integers(came[choice] + 1, lengths[choice]))
                    ids = tuple(range(came[choice], end))
                    scores = () if top is None else tuple(logprobs_of(each, top) for each in ids)
                    log.put(Tokens(came[choice], ids, tuple(text_of(choice, each) for each in ids), choice, scores))
                    came[choice] = end
                else:
                    ended.add(choice)
                    log.put(replace(END, choice=choice, output_token_count=came[choice]))
            case "open":
                positions = [data.draw(st.integers(0, length + 3)) for length in lengths]
                oldest = [choice.first_position for choice in log.choices]
                if all(first <= position for first, position in zip(oldest, positions, strict=True)):
                    readers.append(Told(log.read(positions, wants_prompt=False), positions))
                    continue
                with pytest.raises(TooLong) as raised:
                    log.read(positions, wants_prompt=False)
                choice = int(raised.value.metadata["choice"])
                assert positions[choice] < oldest[choice] == int(raised.value.metadata["first_position"])
            case "take" if readers:
                data.draw(st.sampled_from(readers)).take()
            case "close" if readers:
                log.close(readers.pop().reader)
    log.finish(Outcome([replace(END, choice=choice) for choice in range(count)]), before_submit_s=0.0, total_s=1.0)
    for told in readers:
        while told.take():
            pass
        for choice, length in enumerate(lengths):
            first = told.first[choice]
            assert told.ids[choice] == list(range(first, length))
            assert told.texts[choice] == "".join(text_of(choice, each) for each in range(first, length))
            assert told.finished[choice].token_hash == chain(EMPTY, range(length))
        assert told.usage is not None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.sampled_from([None, 0, 3]), st.integers(1, 64))
def test_no_more_is_kept_than_the_limit_while_all_keep_up(length: int, top: int | None, limit: int) -> None:
    log = Log(Asked((1, 2), logprobs=top), limit=limit)
    reader = log.read([0], wants_prompt=False)
    told_each = 1 + (top or 0)
    for position in range(length):
        scores = () if top is None else (logprobs_of(position, top),)
        log.put(Tokens(position, (position,), ("x",), logprobs=scores))
        assert len(reader.take()) == 1
        assert log.told_count - len(log.prompt) <= max(limit, told_each) + told_each  # the last one is still unread
    assert list(log.choices[0].ids) == list(range(length))


def test_what_ended_before_its_output_was_reread_is_not_told_from_its_beginning() -> None:
    log = Log(Asked((1, 2), resumed=[(5, 6)]))
    reader = log.read([2], wants_prompt=False)
    log.put(replace(END, reason=FinishReason.CANCELLED, cause=Cause.CLIENT, output_token_count=2))
    [event] = reader.take()
    assert event.finished.output_token_count == 2
    with pytest.raises(TooLong) as raised:
        log.read([0], wants_prompt=False)
    assert raised.value.metadata["first_position"] == "2"
