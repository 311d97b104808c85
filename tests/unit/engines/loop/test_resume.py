"""A request that comes with a part of its output goes on as if it had never been interrupted."""

from dataclasses import replace

import pytest

from engines.model import FinishReason, Sampling, Work
from engines.text.transcript import Transcript
from tests.support.outputs import Output, bench, expected, latin_transcript, work
from tests.support.paged_runner import PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])
HOT = Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=3, min_tokens=5)


def run(request: Work, depth: int = 0) -> Output:
    with bench(
        PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=depth), blocks=BLOCKS, block_size=BLOCK_SIZE
    ) as it:
        return it.run(request)


@DEPTHS
@pytest.mark.parametrize("choice", [0, 2])
def test_the_rest_is_the_same_from_wherever_it_goes_on(depth: int, choice: int) -> None:
    request = work("a", max_tokens=12, sampling=HOT, choice=choice)
    whole = run(request, depth)
    for count in range(12):
        rest = run(replace(request, output=tuple(whole.ids[:count])), depth)
        assert (rest.ids, rest.text) == (whole.ids[count:], whole.text[count:])
        assert rest.given_text == whole.text[:count]
        assert rest.end().output_token_count == 12


@DEPTHS
def test_a_stop_text_may_begin_in_what_was_given(depth: int) -> None:
    ids = reference(work("a"))
    request = work("a", stop=("".join(map(chr, ids[2:5])),))
    whole = run(request, depth)
    assert (whole.ids, whole.end().reason) == (ids[:5], FinishReason.STOP_STRING)
    for count in range(5):
        part = replace(request, output=tuple(ids[:count]))
        rest = run(part, depth)
        assert rest.ids == ids[count:5]
        assert rest.text == expected(part).text == whole.text[min(count, 2) :]
        assert rest.given_text + rest.text == whole.text
        assert (rest.end().reason, rest.end().output_token_count) == (FinishReason.STOP_STRING, 5)


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.STOP_TOKEN, FinishReason.STOP_STRING])
def test_what_was_given_to_its_end_ends_without_a_step(reason: FinishReason) -> None:
    ids = reference(work("a"))
    requests = {
        FinishReason.LENGTH: work("a", output=tuple(ids)),
        FinishReason.STOP_TOKEN: work("a", output=tuple(ids[:3]), stop_token_ids=frozenset({ids[2]}), stop=("no",)),
        FinishReason.STOP_STRING: work("a", output=tuple(ids[:3]), stop=(chr(ids[2]),)),
    }
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE) as it:
        output = it.run(requests[reason])
        assert it.loop.progress().waiting_count == 0
    end = output.end()
    assert output.ids == []
    assert output.given_text == "".join(map(chr, ids if reason is FinishReason.LENGTH else ids[:2]))
    assert (end.reason, end.output_token_count) == (reason, len(requests[reason].output))
    assert end.matched_token_id == (ids[2] if reason is FinishReason.STOP_TOKEN else None)
    assert end.matched_stop == (chr(ids[2]) if reason is FinishReason.STOP_STRING else "")
    assert not runner.batches


def test_one_whose_given_text_is_still_being_read_can_be_cancelled() -> None:
    def transcript(stops: tuple[str, ...]) -> Transcript:
        if stops:  # on a text thread
            it.cancel(request)
            assert it.run(other).ids == reference(other)  # by then the cancel has been taken
        return latin_transcript(stops)

    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, transcript=transcript) as it:
        request, other = work("a", max_tokens=100, output=(1, 2), stop=("never",)), work("b")
        end = it.run(request).end()
        assert it.run(work("c")).end().reason is FinishReason.LENGTH
        assert it.loop.progress().waiting_count == 0
    assert (end.reason, end.output_token_count) == (FinishReason.CANCELLED, 2)
    assert all(row.sequence.work.key != "a" for batch in runner.batches for row in batch.rows)
