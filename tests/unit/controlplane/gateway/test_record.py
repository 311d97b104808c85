"""What a gateway keeps of a stream, and the request that it makes of that."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.record import READ_AT, Event, Gap, Record
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.times import from_duration, to_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2

PROMPT = [7, 8, 9]
NEVER = generation_pb2.FAILOVER_POLICY_EXACT_ONLY


def kept(n: int = 1, best_of: int = 0) -> hop_pb2.Kept:
    resume = generation_pb2.Resume(prompt_token_ids={"ids": PROMPT}, seed=4, fingerprint="f")
    request = inference_service_pb2.GenerateRequest(
        deployment="chat",
        request_id="r",
        sampling=generation_pb2.SamplingParams(n=n, best_of=best_of),
        options=generation_pb2.RequestOptions(resume=resume, max_duration=to_duration(10)),
        echo=True,
    )
    return hop_pb2.Kept(generate=request)


def delta(choice: int, first: int, ids: list[int]) -> Event:
    return Event(delta=generation_pb2.Delta(choice=choice, first_position=first, token_ids=ids, text="x" * len(ids)))


def finished(choice: int) -> Event:
    return Event(finished=generation_pb2.Finished(choice=choice))


def message(*events: Event) -> bytes:
    return inference_service_pb2.GenerateResponse(events=events).SerializeToString()


@dataclass
class Story:
    """A run: what each of its choices gives, and the events in which that is told."""

    outputs: list[list[int]]
    events: list[Event] = field(default_factory=list)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    outputs = draw(st.lists(st.lists(st.integers(0, 1000), max_size=12), min_size=1, max_size=3))
    story = Story(outputs)
    told = [0] * len(outputs)
    while any(count < len(output) for count, output in zip(told, outputs, strict=True)):
        choice = draw(st.sampled_from([each for each, count in enumerate(told) if count < len(outputs[each])]))
        count = draw(st.integers(1, len(outputs[choice]) - told[choice]))
        story.events.append(delta(choice, told[choice], outputs[choice][told[choice] : told[choice] + count]))
        told[choice] += count
    story.events += [finished(choice) for choice in range(len(outputs))]
    story.events.append(Event(usage=generation_pb2.Usage()))
    return story


@given(story=stories(), cut=st.integers(0, 50))
def test_whatever_was_told_another_engine_is_asked_to_go_on_behind_it(story: Story, cut: int) -> None:
    record = Record(kept(n=len(story.outputs)), 0.0)
    told = story.events[:cut]
    for each in told:
        record.add(message(each))
    request = record.resuming(NEVER, 0.0)
    seen: dict[int, list[int]] = {}
    for each in told:
        seen.setdefault(each.delta.choice, []).extend(each.delta.token_ids)
    resumed = {each.choice: list(each.output_token_ids.ids) for each in request.options.resume.choices}
    assert resumed == {choice: ids for choice, ids in seen.items() if ids}
    assert record.is_complete == (cut >= len(story.events))


@given(story=stories(), cut=st.integers(0, 50), again=st.integers(0, 50))
def test_what_an_engine_tells_again_is_told_once(story: Story, cut: int, again: int) -> None:
    record = Record(kept(n=len(story.outputs)), 0.0)
    for each in story.events[:cut]:
        record.add(message(each))
    rest = story.events[min(cut, again) :]
    assert record.unseen(rest) == story.events[cut:]
    assert record.is_complete


def test_many_messages_are_kept_as_well_as_few() -> None:
    record = Record(kept(), 0.0)
    count = READ_AT // len(message(delta(0, 10_000, [5]))) * 2
    for position in range(count):
        record.add(message(delta(0, position, [position])))
    [told] = record.positions()
    assert (told.choice, told.output_token_count) == (0, count)
    assert list(record.resuming(NEVER, 0.0).options.resume.choices[0].output_token_ids.ids) == list(range(count))


def test_a_gap_is_not_told() -> None:
    record = Record(kept(), 0.0)
    record.add(message(delta(0, 0, [1])))
    with pytest.raises(Gap):
        record.unseen([delta(0, 2, [3])])


def test_what_a_client_had_before_it_attached_counts() -> None:
    made = kept()
    made.generate.options.resume.choices.add(choice=0, output_token_ids={"ids": [1, 2]})
    record = Record(made, 0.0)
    record.add(message(delta(0, 2, [3])))
    assert list(record.resuming(NEVER, 0.0).options.resume.choices[0].output_token_ids.ids) == [1, 2, 3]


def test_the_time_that_is_left_grows_shorter() -> None:
    record = Record(kept(), 100.0)
    assert from_duration(record.resuming(NEVER, 103.0).options.max_duration) == pytest.approx(7.0)
    assert from_duration(record.resuming(NEVER, 200.0).options.max_duration) > 0


def piece(first: int, ids: list[int], text: str = "") -> Event:
    return Event(prompt=generation_pb2.Prompt(first_position=first, token_ids=ids, text=text))


PIECES = [piece(0, PROMPT, "one "), piece(3, [], "and text that is left")]


@pytest.mark.parametrize("told", [0, 1, 2])
def test_a_prompt_is_told_once_and_whole(told: int) -> None:
    record = Record(kept(), 0.0)
    for each in PIECES[:told]:
        record.add(message(each))
    request = record.resuming(NEVER, 0.0)
    assert isinstance(request, inference_service_pb2.GenerateRequest)
    assert request.echo
    record.renew(kept(), 0.0)
    assert record.unseen([*PIECES, delta(0, 0, [1])]) == [*PIECES[told:], delta(0, 0, [1])]


def test_a_prompt_is_not_asked_for_again_behind_the_first_output() -> None:
    record = Record(kept(), 0.0)
    for each in (*PIECES, delta(0, 0, [1])):
        record.add(message(each))
    request = record.resuming(NEVER, 0.0)
    assert isinstance(request, inference_service_pb2.GenerateRequest)
    assert not request.echo


def test_a_run_of_the_same_name_with_another_seed_or_prompt_is_another_request() -> None:
    record, other, longer = Record(kept(), 0.0), kept(), kept()
    other.generate.options.resume.seed = 5
    longer.generate.options.resume.prompt_token_ids.ids.append(1)
    assert [record.is_of(each) for each in (kept(), other, longer, hop_pb2.Kept())] == [True, False, False, False]


def test_what_goes_on_behind_what_may_differ_is_not_exact() -> None:
    record, approximate = Record(kept(), 0.0), kept()
    approximate.generate.options.resume.fingerprint = "approximate:f"
    record.renew(approximate, 0.0)
    assert record.cancelled(receipt_pb2.CANCEL_CAUSE_CLIENT)[0].finished.exactness == (
        generation_pb2.EXACTNESS_APPROXIMATE
    )


def test_the_best_of_several_are_made_again_from_the_beginning() -> None:
    record = Record(kept(n=1, best_of=3), 0.0)
    record.add(message(delta(0, 0, [1, 2])))
    assert not record.resuming(NEVER, 0.0).options.resume.choices
    assert record.unseen([delta(0, 0, [1, 2]), finished(0)]) == [finished(0)]


def test_a_request_that_was_cancelled_between_two_engines_ends_with_what_was_told() -> None:
    record = Record(kept(n=2), 0.0)
    record.add(message(delta(0, 0, [1, 2]), finished(0), delta(1, 0, [3])))
    *ends, last = record.cancelled(receipt_pb2.CANCEL_CAUSE_CLIENT)
    [end] = [each.finished for each in ends]
    assert (end.choice, end.output_token_count, end.token_hash) == (1, 1, chain(EMPTY, [3]))
    assert end.cancel_cause == receipt_pb2.CANCEL_CAUSE_CLIENT
    assert (last.usage.prompt_token_count, last.usage.output_token_count) == (3, 3)
