"""Guesses make steps fewer and change no output, whoever makes them."""

from collections.abc import Callable, Sequence

import pytest

from engines.loop.ngram import NGrams
from engines.model import FinishReason, Sampling
from tests.support.outputs import bench, expected, work
from tests.support.paged_runner import PagedRunner, reference

BLOCKS, BLOCK_SIZE = 64, 4
Guess = Callable[[Sequence[int], list[int], int], Sequence[int]]  # (ids so far, what follows in truth, most)


class Proposer:
    """Guesses as a test says, knowing what follows."""

    def __init__(self, guess: Guess, truths: dict[str, list[int]]) -> None:
        self.forgotten: list[str] = []
        self._guess = guess
        self._truths = truths

    def propose(self, sequences: Sequence[tuple[str, Sequence[int]]], most: int) -> Sequence[Sequence[int]]:
        return [self._guess(ids, self._truths[name][len(ids) :], most) for name, ids in sequences]

    def forget(self, name: str) -> None:
        self.forgotten.append(name)


GUESSES: dict[str, Guess] = {
    "right": lambda _, truth, most: truth[:most],
    "right, and more than was asked for": lambda _, truth, most: truth[: 3 * most],
    "wrong": lambda _, truth, most: [(token + 1) % 256 for token in truth[:most]],
    "right, then wrong": lambda _, truth, most: [*truth[: most - 1], 0],
    "no ids": lambda _, truth, most: [*truth[: most - 1], -1],
    "nothing": lambda _ids, _truth, _most: (),
    "what was said": lambda ids, _, most: list(ids[-most:]),
}
SAMPLINGS = [
    Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0),
    Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=5, min_tokens=4),
]


@pytest.mark.parametrize("name", GUESSES)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampled"])
@pytest.mark.parametrize("blocks", [BLOCKS, 10], ids=["much room", "little room"])
def test_any_guess_gives_the_same_output(name: str, sampling: Sampling, blocks: int) -> None:
    requests = [
        work(
            str(index),
            prompt=[index] * 3,
            max_tokens=15,
            sampling=sampling,
            stop_token_ids=frozenset(range(index * 10)),
            stop=(chr(200),) if index == 3 else (),
            logprobs=1,
        )
        for index in range(5)
    ]
    truths = {f"{each.key}/0": [*each.prompt, *reference(each)] for each in requests}
    proposer = Proposer(GUESSES[name], truths)
    runner = PagedRunner(blocks=blocks, block_size=BLOCK_SIZE)
    with bench(runner, blocks=blocks, block_size=BLOCK_SIZE, proposer=proposer) as it:
        outputs = [it.submit(request) for request in requests]
        ends = [output.end() for output in outputs]
        progress = it.loop.progress()
    for request, output, end in zip(requests, outputs, ends, strict=True):
        truth = expected(request)
        assert (output.ids, output.text, end.reason) == (truth.ids, truth.text, truth.reason)
        assert [each.chosen.token for each in output.logprobs] == output.ids
    assert sorted(proposer.forgotten) == sorted(truths)
    assert progress.accepted_token_count <= progress.drafted_token_count
    if name == "right":
        assert progress.accepted_token_count > 0


def test_right_guesses_save_steps() -> None:
    request = work("a", max_tokens=21)
    proposer = Proposer(GUESSES["right"], {"a/0": [*request.prompt, *reference(request)]})
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, proposer=proposer, draft_count=4) as it:
        output = it.run(request)
    assert output.ids == reference(request)
    assert len(runner.batches) == 5  # the prompt gives one token, and each step behind it five


def test_a_proposer_that_fails_is_not_asked_again_and_costs_nobody_anything() -> None:
    asked: list[int] = []

    class Broken:
        """Fails when it is asked."""

        def propose(self, sequences: Sequence[tuple[str, Sequence[int]]], most: int) -> Sequence[Sequence[int]]:
            asked.append(most)
            raise RuntimeError("no such guess")

        def forget(self, name: str) -> None:
            raise AssertionError

    faults: list[BaseException] = []
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE)
    with bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, proposer=Broken(), on_fault=faults.append) as it:
        assert it.run(work("a")).ids == reference(work("a"))
        assert it.loop.fault is None
    assert (asked, [str(fault) for fault in faults]) == ([4], ["no such guess"])


def test_guesses_and_overlapping_steps_exclude_each_other() -> None:
    runner = PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE, depth=1)
    with (
        pytest.raises(AssertionError, match="exclude each other"),
        bench(runner, blocks=BLOCKS, block_size=BLOCK_SIZE, proposer=NGrams()),
    ):
        raise NotImplementedError


def test_with_prompt_lookup_outputs_stay_what_they_are() -> None:
    requests = [work(str(index), prompt=[1, 2, 3, 4] * 4, max_tokens=20, stop=("xyz",)) for index in range(4)]
    with bench(
        PagedRunner(blocks=BLOCKS, block_size=BLOCK_SIZE),
        blocks=BLOCKS,
        block_size=BLOCK_SIZE,
        proposer=NGrams(longest=2, shortest=1),
    ) as it:
        outputs = [it.submit(request) for request in requests]
        assert {output.end().reason for output in outputs} == {FinishReason.LENGTH}
    assert [output.ids for output in outputs] == [reference(request) for request in requests]
