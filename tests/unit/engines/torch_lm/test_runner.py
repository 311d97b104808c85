"""The runner keeps to what the step loop asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from engines.backends.torch_lm.load import Loaded
from engines.backends.torch_lm.runner import Logits, TorchRunner
from engines.batching.batch import PENDING, Batch, Draw, Row, Score
from engines.batching.sequence import Sequence as Tokens
from engines.loop.interfaces import OutOfMemory
from engines.model import Logprobs, Sampled
from tests.support.model_bench import needs_the_same_bits
from tests.support.outputs import GREEDY, work
from tests.unit.engines.torch_lm.conftest import Load


@pytest.fixture
def model(loaded: Load) -> Loaded:
    return loaded("qwen3")


@pytest.fixture
def runner(model: Loaded) -> TorchRunner:
    assert isinstance(model.runner, TorchRunner)
    model.runner.depth = 0
    return model.runner


def sequence(ids: Sequence[int], first_block: int = 0) -> Tokens:
    made = Tokens(work("a", ids))
    made.blocks = list(range(first_block, first_block + 8))
    return made


def row(tokens: Tokens, first: int = 0, wanted: int = 1) -> Row:
    ids = tuple(tokens.ids[first:])
    return Row(tokens, ids, first, tokens.blocks, len(ids) - wanted)


def forward(runner: TorchRunner, *rows: Row) -> Logits:
    return runner.forward(Batch(rows))


def drawn(runner: TorchRunner, logits: Logits, count: int = 1) -> list[int]:
    answers = runner.sample(logits, [Draw(GREEDY, 0)] * count).wait()
    return [answer.token for answer in answers if isinstance(answer, Sampled)]


def test_logits_are_there_for_each_token_that_wants_them_and_for_no_other(model: Loaded, runner: TorchRunner) -> None:
    needs_the_same_bits(model)
    first, second, silent = sequence([5, 6, 7, 8]), sequence([9, 10, 11], 8), sequence([1, 2, 3], 16)
    together = forward(runner, row(first, wanted=3), row(second), row(silent, wanted=0))
    assert [owner is first for owner in together.owners] == [True, True, True, False]
    assert together.numbers.shape == (4, 320)
    for count in (2, 3, 4):
        alone = forward(runner, row(sequence([5, 6, 7, 8][:count], 24)))
        assert torch.equal(alone.numbers[0], together.numbers[count - 2])


def test_what_is_picked_outlives_the_next_steps(runner: TorchRunner) -> None:
    first, second = sequence([5, 6, 7]), sequence([9, 10, 11], 8)
    logits = forward(runner, row(first), row(second))
    picked = runner.pick(logits, [1])
    expected = logits.numbers[1].clone()
    for _ in range(3):
        forward(runner, row(sequence([1, 2, 3], 16)))
    assert torch.equal(picked.numbers, expected[None])
    assert picked.owners == [second]


def test_each_ask_is_answered_and_none_is_not(runner: TorchRunner) -> None:
    logits = forward(runner, row(sequence([5, 6, 7, 8]), wanted=4))
    answers = runner.sample(logits, [Score(6, top=2), None, Score(8, top=0), Draw(GREEDY, 0)]).wait()
    assert [type(answer) for answer in answers] == [Logprobs, Logprobs, Sampled]


def test_a_pending_token_is_the_one_that_its_sequence_drew_last(runner: TorchRunner) -> None:
    ids = [[5, 6, 7], [9, 10, 11, 12]]
    expected, given = [], []
    for tokens in ids:
        each = sequence(tokens)
        for _ in range(3):
            each.ids.extend(drawn(runner, forward(runner, row(each))))
        expected.append(each.ids[len(tokens) :])
    runner.depth = 1
    both = [sequence(tokens, 8 * index) for index, tokens in enumerate(ids)]
    rows = [row(each) for each in both]
    for step in range(3):
        given.append(drawn(runner, forward(runner, *rows), 2))
        rows = [
            Row(each, (PENDING,), len(tokens) + step, each.blocks, 0) for each, tokens in zip(both, ids, strict=True)
        ]
        rows, ids, both = rows[::-1], ids[::-1], both[::-1]
    assert [given[0], given[1][::-1], given[2]] == [list(each) for each in zip(*expected, strict=True)]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("the layers found no memory to work in"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes.\nmore"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
    ids=["C", "torch", "CUDA"],
)
def test_want_of_memory_has_one_name(runner: TorchRunner, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(runner, "_compute", fail)
    with pytest.raises(OutOfMemory) as raised:
        forward(runner, row(sequence([5, 6])))
    assert "\n" not in str(raised.value)


def test_other_errors_stay_what_they_are(runner: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(runner, "_compute", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        forward(runner, row(sequence([5, 6])))


def test_a_step_may_want_no_logits_at_all(model: Loaded, runner: TorchRunner) -> None:
    needs_the_same_bits(model)
    tokens = sequence([5, 6, 7])
    assert forward(runner, replace(row(tokens, wanted=0), ids=(5, 6), logits_from=2)).numbers.shape == (0, 320)
    assert torch.equal(
        forward(runner, row(tokens, first=2)).numbers, forward(runner, row(sequence([5, 6, 7], 8))).numbers
    )
