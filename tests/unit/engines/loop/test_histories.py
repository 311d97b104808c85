"""Random histories: whatever else goes on, every output is what it is alone, and in the end every block is free."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from engines.batching.batch import Batch
from engines.loop import OutOfMemory
from engines.model import Cause, End, FinishReason, Sampling, Work
from tests.support.outputs import Bench, Expected, Output, bench, choices_of, expected, work
from tests.support.paged_runner import VOCABULARY_SIZE, PagedRunner, reference

DEPTHS = pytest.mark.parametrize("depth", [0, 1], ids=["one at a time", "one step of overlap"])
LETTERS = 6  # few ids in prompts, so that many begin alike


class Thirds:
    """Allows a third of all ids, which third depends on the ids so far."""

    def __init__(self) -> None:
        self._rest = 0

    def mask(self) -> bytes:
        bits = sum(1 << token for token in range(VOCABULARY_SIZE) if token % 3 == self._rest)
        return bits.to_bytes(VOCABULARY_SIZE // 8, "little")

    def accept(self, token: int) -> None:
        assert token % 3 == self._rest
        self._rest = (self._rest + token) % 3


class Guesser:
    """Guesses right, wrong, too much and nonsense."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.truths: dict[str, list[int]] = {}  # prompt and output, by name

    def propose(self, sequences: Sequence[tuple[str, Sequence[int]]], most: int) -> Sequence[Sequence[int]]:
        return [self._guess(self.truths[name][len(ids) :], most) for name, ids in sequences]

    def forget(self, name: str) -> None:
        del self.truths[name]

    def _guess(self, truth: list[int], most: int) -> list[int]:
        guess = truth[: self._chance.randint(0, most + 2)]
        if guess and self._chance.random() < 0.5:
            guess[self._chance.randrange(len(guess))] = self._chance.randint(-1, VOCABULARY_SIZE - 1)
        return guess


class Trouble:
    """Too little memory for many tokens at once, and forward passes that fail for one sequence."""

    def __init__(self, tokens: int) -> None:
        self.poisoned: set[tuple[str, int]] = set()  # (key, choice)
        self._tokens = tokens

    def __call__(self, batch: Batch) -> Exception | None:
        for row in batch.rows:
            if (row.sequence.work.key, row.sequence.work.choice) in self.poisoned and row.first_position > 2:
                return RuntimeError("poison")
        return OutOfMemory("too much") if batch.token_count > self._tokens else None


@dataclass
class Request:
    """A request, what it gives, and after how many events it is cancelled."""

    works: list[Work]
    expected: list[Expected]
    cancelled_after: int | None
    is_poisoned: bool = False


def random_request(key: str, chance: random.Random, most_tokens: int) -> Request:
    prompt = [chance.randrange(LETTERS) // 3 for _ in range(chance.randint(1, max(1, most_tokens // 2)))]
    request = work(
        key,
        prompt,
        chance.randint(1, most_tokens - len(prompt)),
        Sampling(
            temperature=chance.choice([0.0, 1.0]),
            top_p=1.0,
            top_k=0,
            seed=chance.randrange(3),
            min_tokens=chance.choice([0, 0, 3]),
        ),
        stop_token_ids=frozenset(chance.sample(range(VOCABULARY_SIZE), chance.choice([0, 0, 30]))),
        include_stop=chance.random() < 0.3,
        logprobs=chance.choice([None, None, 0, 2]),
        prompt_logprobs=chance.choice([None, None, None, 1]),
        priority=chance.choice([0, 0, -1, 1]),
        tenant=chance.choice(["", "a", "b"]),
    )
    is_guided = chance.random() < 0.25
    ids = reference(request, Thirds() if is_guided else None)
    if chance.random() < 0.3:
        begin = chance.randrange(len(ids))
        request = replace(request, stop=("".join(map(chr, ids[begin : begin + 2])), "never"))
    if chance.random() < 0.3:
        alone = expected(request, Thirds() if is_guided else None)
        request = replace(request, output=tuple(alone.ids[: chance.randint(0, len(alone.ids))]))
    works = choices_of(request, 1 if request.output else chance.choice([1, 1, 2, 3]))
    works = [replace(each, constraint=Thirds() if is_guided else None) for each in works]
    truths = [expected(each, Thirds() if is_guided else None) for each in works]
    return Request(works, truths, chance.randint(0, most_tokens) if chance.random() < 0.4 else None)


def check(request: Request, outputs: Sequence[Output]) -> None:
    for each, truth, output in zip(request.works, request.expected, outputs, strict=True):
        end = output.end()
        assert sum(isinstance(event, End) for event in output.events) == 1
        assert end.output_token_count == len(each.output) + len(output.ids)
        if end.reason is FinishReason.CANCELLED:
            assert request.cancelled_after is not None
            assert end.cause is Cause.CLIENT
        elif end.reason is FinishReason.FAILED:
            assert request.is_poisoned
            assert (each.choice, str(end.error)) == (0, "poison")
        else:
            assert (output.ids, output.text, end.reason) == (truth.ids, truth.text, truth.reason)
        assert output.ids == truth.ids[: len(output.ids)]
        assert truth.text.startswith(output.text)
        if each.logprobs is not None:
            assert [one.chosen.token for one in output.logprobs] == output.ids
        if each.prompt_logprobs is not None and output.ids:
            assert [one.chosen.token for one in output.prompt_logprobs] == list(each.prompt[1:])


def random_history(it: Bench, name: str, chance: random.Random, most_tokens: int, trouble: Trouble | None) -> None:
    """Runs some requests at a time."""
    requests = [random_request(f"{name}-{index}", chance, most_tokens) for index in range(chance.randint(2, 5))]
    if trouble is not None and chance.random() < 0.8:
        trouble.poisoned = {(requests[0].works[0].key, 0)}
        requests[0].is_poisoned = True
    if isinstance(it.proposer, Guesser):
        for request in requests:
            for each, truth in zip(request.works, request.expected, strict=True):
                it.proposer.truths[f"{each.key}/{each.choice}"] = [*each.prompt, *each.output, *truth.ids]
    outputs = [it.submit_all(request.works) for request in requests]
    for request, mine in zip(requests, outputs, strict=True):
        if request.cancelled_after is not None:
            mine[0].has_or_ended(request.cancelled_after)
            it.cancel(request.works[0])
    for request, mine in zip(requests, outputs, strict=True):
        check(request, mine)
    assert (it.pool.free_count, it.pool.used_count) == (it.pool.total, 0)


def run_histories(seed: int, count: int, depth: int) -> None:
    """Runs so many histories, one after the other, through one loop of random size."""
    chance = random.Random(seed)
    block_size = chance.randint(1, 5)
    blocks = chance.randint(6, 12)
    most_tokens = min(24, blocks * block_size)
    runner = PagedRunner(blocks=blocks, block_size=block_size, depth=depth)
    trouble = Trouble(chance.choice([1, 3, 6, 12, 100, 100, 100])) if chance.random() < 0.5 else None
    if trouble is not None:
        runner.fail_forward, runner.fails_late = trouble, chance.random() < 0.5
    with bench(
        runner,
        blocks=blocks,
        block_size=block_size,
        batch_size=chance.randint(1, 6),
        max_batched_tokens=chance.randint(1, 24),
        shares_prefixes=chance.random() < 0.7,
        proposer=Guesser(random.Random(seed)) if depth == 0 and chance.random() < 0.5 else None,
        draft_count=chance.randint(1, 4),
    ) as it:
        for number in range(count):
            random_history(it, str(number), chance, most_tokens, trouble)
        assert it.loop.fault is None


@DEPTHS
@pytest.mark.parametrize("seed", range(20))
def test_every_output_is_what_it_is_alone_and_every_block_is_free_at_the_end(seed: int, depth: int) -> None:
    run_histories(seed, 20, depth)


@pytest.mark.slow
@DEPTHS
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_every_output_of_ten_thousand_histories_is_what_it_is_alone(seed: int, depth: int) -> None:
    run_histories(seed, 50, depth)


@DEPTHS
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_short_histories_leave_every_block_free(seed: int, depth: int) -> None:
    chance = random.Random(seed)
    runner = PagedRunner(blocks=12, block_size=2, depth=depth)
    with bench(runner, blocks=12, block_size=2, batch_size=4, max_batched_tokens=8) as it:
        for number in range(500):
            outputs = []
            for index in range(chance.randint(1, 3)):
                prompt = [chance.randrange(2) for _ in range(chance.randint(1, 8))]
                request = work(f"{number}-{index}", prompt, chance.randint(1, 8))
                outputs += it.submit_all(choices_of(request, chance.choice([1, 1, 2])))
                if chance.random() < 0.4:
                    it.cancel(request)
            for output in outputs:
                output.end()
            assert (it.pool.free_count, it.pool.used_count) == (12, 0)
