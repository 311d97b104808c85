"""What the runner computes one step ahead is what transformers computes step by step."""

from __future__ import annotations

import random
from collections.abc import Sequence as Run
from dataclasses import dataclass, field

import pytest
import torch

from engines.backends.torch_lm.cuda.runner import CudaRunner
from engines.batching.batch import PENDING, Ask, Batch, Draw, Row, Score
from engines.batching.sequence import Sequence
from engines.loop.interfaces import Answers, OutOfMemory
from engines.model import Logprobs, Sampled, Sampling, Work
from tests.support.outputs import GREEDY
from tests.unit.engines.torch_lm.cuda.models import BLOCK_SIZE, ROWS, Load, Pretending, greedy

FAMILIES = pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "mistral", "gemma2", "gpt_oss"])


@dataclass
class Stream:
    """One sequence as the step loop drives it: a step is begun before the token of the step before is known."""

    prompt: list[int]
    blocks: list[int]
    sampling: Sampling = GREEDY
    output: list[int] = field(default_factory=list)
    begun: int = 0  # tokens of which steps have begun to compute the keys

    def __post_init__(self) -> None:
        self.sequence = Sequence(Work("a", tuple(self.prompt), max_tokens=1, sampling=self.sampling))

    def row(self, most: int) -> Row:
        """Returns the next chunk, or the token that the step before draws."""
        known = [*self.prompt, *self.output]
        first = self.begun
        ids = tuple(known[first : first + most]) or (PENDING,)
        self.begun += len(ids)
        is_last = self.begun >= len(known)
        return Row(self.sequence, ids, first, self.blocks, len(ids) - 1 if is_last else len(ids), draws=is_last)

    def ask(self) -> Draw:
        return Draw(self.sampling, len(self.output), ids=[*self.prompt, *self.output], prompt_count=len(self.prompt))


def drive(runner: CudaRunner, streams: Run[Stream], steps: int, chunk: int = 8) -> None:
    """Goes around as the step loop does: forward, then what the step before gave, then sample."""
    before: tuple[list[Stream], Answers] | None = None
    for _ in range(steps):
        rows = {id(stream): stream.row(chunk) for stream in streams}
        ordered = sorted(streams, key=lambda stream: len(rows[id(stream)].ids) > 1)
        logits = runner.forward(Batch(tuple(rows[id(stream)] for stream in ordered)))
        if before is not None:
            commit(*before)
        speaking = [stream for stream in ordered if rows[id(stream)].logits_count]
        before = (speaking, runner.sample(logits, [stream.ask() for stream in speaking]))
    assert before is not None
    commit(*before)


def commit(streams: Run[Stream], answers: Answers) -> None:
    for stream, answer in zip(streams, answers.wait(), strict=True):
        assert isinstance(answer, Sampled)
        stream.output.append(answer.token)


def streams(count: int, seed: int, sampling: Sampling = GREEDY) -> list[Stream]:
    chance = random.Random(seed)
    width = 16
    return [
        Stream(
            [chance.randrange(2, 320) for _ in range(chance.randint(1, 60))],
            chance.sample(range(index * width, (index + 1) * width), width),
            sampling,
        )
        for index in range(count)
    ]


@FAMILIES
def test_sequences_side_by_side_give_what_transformers_gives(family: str, load: Load) -> None:
    model = load(family)
    together = streams(3, seed=1)
    drive(model.runner, together, steps=20)
    for stream in together:
        assert len(stream.output) >= 16
        assert stream.output == greedy(model, stream.prompt, len(stream.output))


def test_a_draw_by_chance_is_what_it_is_alone(load: Load) -> None:
    hot = Sampling(temperature=1.0, top_p=0.95, top_k=0, seed=7)
    runner = load("qwen3").runner
    together = streams(5, seed=2, sampling=hot)
    drive(runner, together, steps=18)
    for index, stream in enumerate(streams(5, seed=2, sampling=hot)):
        drive(runner, [stream], steps=18)
        assert stream.output == together[index].output


@pytest.mark.parametrize("chunk", [1, 7, 24])
def test_the_size_of_chunks_changes_nothing(load: Load, chunk: int) -> None:
    model = load("llama")
    [stream] = streams(1, seed=3)
    drive(model.runner, [stream], steps=70, chunk=chunk)
    assert stream.output == greedy(model, stream.prompt, len(stream.output))


def test_more_rows_than_were_recorded_are_computed_all_the_same(load: Load) -> None:
    model = load("llama")
    assert model.runner._decoding.size_for(ROWS) == ROWS
    assert model.runner._decoding.size_for(ROWS + 1) is None
    recorded, others = streams(3, seed=4), streams(3, seed=4)
    drive(model.runner, recorded, steps=12)
    size_for = model.runner._decoding._sizes
    model.runner._decoding._sizes = []
    try:
        drive(model.runner, others, steps=12)
    finally:
        model.runner._decoding._sizes = size_for
    assert [stream.output for stream in others] == [stream.output for stream in recorded]


def test_logits_that_are_picked_stay_what_they_were(load: Load) -> None:
    runner = load("qwen3").runner
    one, two = streams(2, seed=5)
    logits = runner.forward(Batch((one.row(64), two.row(64))))
    kept = runner.pick(logits, [1])
    [first, second] = runner.sample(logits, [one.ask(), two.ask()]).wait()
    other = streams(1, seed=6)
    drive(runner, other, steps=5)
    assert runner.sample(kept, [two.ask()]).wait() == [second]
    assert isinstance(first, Sampled)


def test_what_is_not_asked_gets_no_answer_and_scores_go_beside_draws(load: Load) -> None:
    model = load("llama")
    [stream] = streams(1, seed=7)
    prompt = tuple(stream.prompt[:6])
    row = Row(stream.sequence, prompt, 0, stream.blocks, logits_from=0)
    asks: list[Ask | None] = [Score(token, 2) for token in prompt[1:]]
    asks[1] = None
    answers = model.runner.sample(model.runner.forward(Batch((row,))), [*asks, stream.ask()]).wait()
    expected = model.stock(torch.tensor([prompt], device=model.stock.device)).logits[0].log_softmax(-1)
    assert [type(answer) for answer in answers] == [Logprobs] * 4 + [Sampled]
    assert isinstance(answers[0], Logprobs)
    assert answers[0].chosen.logprob == pytest.approx(float(expected[0, prompt[1]]), abs=1e-4)
    nothing = model.runner.sample(model.runner.forward(Batch((row,))), [None] * 6)
    assert list(nothing.wait()) == []


def test_the_end_of_a_step_is_waited_for_even_if_nothing_is_asked_of_it(load: Load) -> None:
    model = load("llama")
    if not isinstance(model.machine, Pretending):
        pytest.skip("a real GPU does not count who waits for it")
    [stream] = streams(1, seed=7)
    chunk = Row(stream.sequence, tuple(stream.prompt[:6]), 0, stream.blocks, logits_from=6)
    answers = model.runner.sample(model.runner.forward(Batch((chunk,))), [])
    before = model.machine.waited_count
    answers.wait()
    assert model.machine.waited_count == before + 1


def test_too_little_memory_is_told_in_the_words_of_the_step_loop(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = load("llama").runner

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")

    [stream] = streams(1, seed=8)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_compute", fail)
        with pytest.raises(OutOfMemory, match=r"Tried to allocate 2\.00 GiB"):
            runner.forward(Batch((stream.row(64),)))
    stream.begun = 0
    drive(runner, [stream], steps=8)
    assert stream.output == greedy(load("llama"), stream.prompt, len(stream.output))


def test_blocks_of_others_are_not_touched(load: Load) -> None:
    assert BLOCK_SIZE * 16 >= 60 + 20
    model = load("llama")
    first, second = streams(2, seed=9)
    drive(model.runner, [first], steps=6)
    drive(model.runner, [second], steps=12)
    drive(model.runner, [first], steps=6)
    for stream in (first, second):
        assert stream.output == greedy(model, stream.prompt, len(stream.output))
