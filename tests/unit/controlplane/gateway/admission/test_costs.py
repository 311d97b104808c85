"""What a request will cost, what it did, and what its stream tells if it never ran."""

from __future__ import annotations

import pytest

from controlplane.gateway.admission.costs import cost_of, usage_in
from controlplane.gateway.admission.ending import deadline_of, shorten, withdrawn
from controlplane.gateway.admission.requests import Cost
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.times import from_duration, to_duration
from roundhouse.v1 import generation_pb2 as g
from roundhouse.v1 import receipt_pb2
from roundhouse.v1.inference_service_pb2 import ChatRequest, GenerateRequest, GenerateResponse

TEXT = g.ContentPart(text="x" * 400)
IDS = g.ContentPart(token_ids=g.TokenIds(ids=range(30)))
RESUMED = g.RequestOptions(resume=g.Resume(prompt_token_ids=g.TokenIds(ids=range(7))))


@pytest.mark.parametrize(
    ("request_", "cost"),
    [
        pytest.param(GenerateRequest(prompt=[TEXT, IDS]), Cost(130), id="text and ids"),
        pytest.param(GenerateRequest(prompt=[g.ContentPart(text="é" * 200)]), Cost(100), id="by the bytes of a text"),
        pytest.param(GenerateRequest(prompt=[IDS], sampling={"max_tokens": 9}), Cost(30, 9), id="an end"),
        pytest.param(GenerateRequest(prompt=[IDS], sampling={"n": 3, "best_of": 5}), Cost(30, None, 5), id="choices"),
        pytest.param(GenerateRequest(options=RESUMED), Cost(7), id="resumed"),
        pytest.param(
            ChatRequest(messages=[g.Message(content=[TEXT]), g.Message(content=[TEXT])]), Cost(200), id="chat"
        ),
        pytest.param(GenerateRequest(), Cost(1), id="nothing"),
        pytest.param(
            GenerateRequest(sampling={"n": 10**6, "max_tokens": -5}), Cost(1, 1, 16), id="what an engine will refuse"
        ),
    ],
)
def test_what_a_request_will_cost_is_read_off_it(request_: GenerateRequest | ChatRequest, cost: Cost) -> None:
    assert cost_of(request_) == cost


def test_usage_is_found_in_the_last_message_and_nowhere_else() -> None:
    usage = g.Usage(prompt_token_count=3, output_token_count=5)
    finished = g.GenerationEvent(finished=g.Finished())
    last = GenerateResponse(events=[finished, g.GenerationEvent(usage=usage)])
    assert usage_in(last.SerializeToString()) == usage
    for other in (GenerateResponse(), GenerateResponse(events=[finished])):
        assert usage_in(other.SerializeToString()) is None
    assert usage_in(b"\xff no message") is None


def test_a_request_has_to_end_by_the_nearer_of_its_two_bounds() -> None:
    bounded = GenerateRequest(options={"max_duration": to_duration(5)})
    assert [deadline_of(GenerateRequest(), each) for each in (None, 3.0)] == [None, 3.0]
    assert [deadline_of(bounded, each) for each in (None, 3.0, 8.0)] == [5.0, 3.0, 5.0]


def test_what_was_waited_is_taken_off_what_a_request_may_take() -> None:
    bounded, free = GenerateRequest(options={"max_duration": to_duration(5)}), GenerateRequest()
    shorten(bounded, 2.0)
    shorten(free, 2.0)
    assert from_duration(bounded.options.max_duration) == 3.0
    assert not free.options.HasField("max_duration")
    shorten(bounded, 4.0)
    assert 0 < from_duration(bounded.options.max_duration) < 1e-6


def test_a_stream_that_never_ran_tells_of_each_choice_that_was_to_be_sent() -> None:
    receipt = receipt_pb2.CancelReceipt(
        cause=receipt_pb2.CANCEL_CAUSE_CLIENT,
        positions=[receipt_pb2.ChoicePosition(choice=choice) for choice in range(4)],
    )
    events = GenerateResponse.FromString(withdrawn(receipt, 0.5, GenerateRequest(sampling={"n": 2}))).events
    assert [each.WhichOneof("event") for each in events] == ["finished", "finished", "usage"]
    assert [each.finished.choice for each in events[:2]] == [0, 1]
    assert {each.finished.reason for each in events[:2]} == {g.FINISH_REASON_CANCELLED}
    assert events[2].usage.output_token_count == 0
    assert from_duration(events[2].usage.total_duration) == 0.5


def test_a_stream_that_was_to_go_on_and_never_did_proves_the_output_that_it_was_given() -> None:
    receipt = receipt_pb2.CancelReceipt(
        cause=receipt_pb2.CANCEL_CAUSE_CLIENT,
        positions=[receipt_pb2.ChoicePosition(choice=choice) for choice in range(2)],
    )
    resume = {"choices": [{"choice": 1, "output_token_ids": {"ids": [5, 6, 7]}}]}
    request = GenerateRequest(sampling={"n": 2}, options={"resume": resume})
    events = GenerateResponse.FromString(withdrawn(receipt, 0.5, request)).events
    told = [(each.finished.output_token_count, each.finished.token_hash) for each in events[:2]]
    assert told == [(0, EMPTY), (3, chain(EMPTY, [5, 6, 7]))]
    assert events[2].usage.output_token_count == 3


def test_a_stream_that_never_ran_ends_well_whatever_output_it_was_given() -> None:
    receipt = receipt_pb2.CancelReceipt(positions=[receipt_pb2.ChoicePosition()])
    resume = {"choices": [{"choice": 7, "output_token_ids": {"ids": [5]}}, {"output_token_ids": {"ids": [-1]}}]}
    request = GenerateRequest(options={"resume": resume})
    events = GenerateResponse.FromString(withdrawn(receipt, 0.5, request)).events
    assert [each.WhichOneof("event") for each in events] == ["finished", "usage"]
    assert events[0].finished.token_hash == b""
