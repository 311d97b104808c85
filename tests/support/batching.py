"""A cache in plain Python under the real scheduler. It checks every row of every step against what was truly said.

Each draw is a function of all tokens before it, so a token that was lost, computed twice or read from a wrong block
shows. Batches are computed in order and may be committed late, as with steps that overlap.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from engines.batching.batch import PENDING, Batch, Row
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Freed, Scheduler
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
LETTERS = 3  # so few that prefixes meet and guesses come true


def drawn(ids: Iterable[int], choice: int) -> int:
    """Returns the token behind these."""
    return hash((choice, *ids)) % LETTERS


def sequence_of(prompt: int | Iterable[int], max_tokens: int = 4, *, key: str = "", **facts: Any) -> Sequence:
    """Returns a sequence with this prompt, or with one of so many ids that begins as no other one does."""
    ids = (prompt, *range(1000, 999 + prompt)) if isinstance(prompt, int) else tuple(prompt)
    return Sequence(Work(key or f"prompt-{prompt}", ids, max_tokens, GREEDY, **facts))


def finish_step(scheduler: Scheduler, batch: Batch, token: int = 7) -> None:
    """Commits a batch in which every row that draws gives this token. Who has all its tokens leaves."""
    for row in batch.rows:
        scheduler.commit(row, (token,) if row.draws else ())
        if len(row.sequence.ids) == row.sequence.final_count:
            scheduler.remove(row.sequence)


def keys(sequences: Iterable[Sequence]) -> list[str]:
    """Returns the keys of sequences."""
    return [sequence.work.key for sequence in sequences]


class World:
    """Sequences come and go, steps are scheduled and computed, and all that must hold is checked."""

    def __init__(
        self,
        *,
        blocks: int,
        block_size: int,
        batch_size: int,
        max_batched_tokens: int,
        shares_prefixes: bool = True,
        ageing_ms: int = 1_000,
    ) -> None:
        self.pool = BlockPool(blocks, block_size)
        self.scheduler = Scheduler(
            self.pool,
            batch_size=batch_size,
            max_batched_tokens=max_batched_tokens,
            shares_prefixes=shares_prefixes,
            ageing_ms=ageing_ms,
        )
        self.max_tokens = max_batched_tokens
        self.now_ms = 0
        self.live: list[Sequence] = []
        self.under_way: deque[Batch] = deque()  # scheduled, not computed
        self.parked: list[tuple[Row, list[int]]] = []  # computed, and what was drawn; not committed
        self._said: dict[Sequence, list[int]] = {}  # prompt and output, known to the cache before the scheduler
        self._scored: Counter[Sequence] = Counter()
        self._written: list[list[int]] = [[PENDING] * block_size for _ in range(blocks)]

    def arrive(self, work: Work) -> Sequence | None:
        """Adds a sequence; None if it can never be held."""
        sequence = Sequence(work)
        if not self.scheduler.can_hold(sequence):
            return None
        self.scheduler.add(sequence, self.now_ms)
        self.live.append(sequence)
        self._said[sequence] = list(sequence.ids)
        return sequence

    def leave(self, sequence: Sequence) -> Freed:
        """Removes a sequence, whatever is under way of it."""
        held = self._held()
        alone = [block for block in sequence.blocks if held.count(block) == 1]
        freed = self.scheduler.remove(sequence)
        assert freed.after - freed.before == len(alone)
        assert not sequence.blocks
        self.live.remove(sequence)
        self.parked = [(row, tokens) for row, tokens in self.parked if row.sequence is not sequence]
        self.check()
        return freed

    def schedule(self) -> Batch:
        """Makes the next batch. Nothing of it is computed yet."""
        batch = self.scheduler.next_batch(self.now_ms)
        rows = batch.rows
        assert bool(rows) or bool(self.under_way or self.parked or not self.live), "idle for no reason"
        assert batch.token_count <= self.max_tokens
        lengths = [len(row.ids) for row in rows]
        single = lengths.count(1)
        assert lengths[:single] == [1] * single
        assert len({row.sequence for row in rows}) == len(rows) <= self.scheduler.max_running
        held = self._held()
        parked = [row.sequence for row, _ in self.parked]
        size = self.pool.block_size
        for row in rows:
            assert row.sequence in self.live
            assert row.epoch == row.sequence.epoch
            assert row.blocks is row.sequence.blocks
            assert row.sequence not in parked
            for index in range(row.first_position // size, -(-(row.first_position + len(row.ids)) // size)):
                assert held.count(row.blocks[index]) == 1, "it writes where others read"
        if rows:
            self.under_way.append(batch)
        self.check()
        return batch

    def compute(self, parks: Callable[[Row], bool] = lambda _: False) -> None:
        """Computes the oldest batch under way, and commits it, except rows that it parks.

        A row with guesses is not parked, nor one of whose sequence more is in flight.
        """
        for row in self.under_way.popleft().rows:
            tokens = self._computed(row)
            may_park = row.draws and not row.draft_count and row.sequence.in_flight_count == 1
            if may_park and row.sequence in self.live and parks(row):
                row.sequence.is_parked = True
                self.scheduler.computed(row)
                self.parked.append((row, tokens))
            else:
                self._commit(row, tokens)

    def unpark(self, index: int) -> None:
        """Commits one of the parked rows."""
        row, tokens = self.parked.pop(index)
        row.sequence.is_parked = False
        self._commit(row, tokens)

    def retract(self) -> None:
        """Computes nothing of what is under way."""
        while self.under_way:
            self.scheduler.retract(self.under_way.pop())

    def guess(self, sequence: Sequence, count: int, *, right_count: int) -> None:
        """Guesses some tokens, the first of them right."""
        ids = list(sequence.ids)
        for index in range(count):
            token = drawn(ids, sequence.work.choice)
            ids.append(token if index < right_count else (token + 1) % LETTERS)
        sequence.draft = tuple(ids[len(sequence.ids) :])

    def finish(self) -> None:
        """Runs all to its end. Then nothing may be held."""
        step_count = 0
        while self.live:
            while self.under_way:
                self.compute()
            while self.parked:
                self.unpark(0)
            if self.live:
                self.schedule()
            step_count += 1
            assert step_count < 10_000, "no end"
        while self.under_way:
            self.compute()
        assert self.pool.free_count == self.pool.total
        assert self.scheduler.running_count + self.scheduler.waiting_count == 0
        assert (self.scheduler.running_count, self.scheduler.waiting_count) == (0, 0)

    def check(self) -> None:
        """Checks what holds at any time."""
        pool, scheduler = self.pool, self.scheduler
        assert pool.free_count + pool.used_count == pool.total
        assert pool.used_count == len(set(self._held()))
        assert scheduler.running_count <= scheduler.max_running
        assert scheduler.running_count + scheduler.waiting_count == len(self.live)
        assert scheduler.running_count + scheduler.waiting_count == len(self.live)
        for sequence in self.live:
            assert sequence.registered_count * pool.block_size <= sequence.computed_count <= sequence.scheduled_count

    def _computed(self, row: Row) -> list[int]:
        """Writes a row, reads all that it attends to, and returns what is drawn behind it."""
        sequence, said, size = row.sequence, self._said[row.sequence], self.pool.block_size
        first, end, guesses = row.first_position, row.first_position + len(row.ids), row.draft_count
        ids = [said[-1], *row.ids[1:]] if row.ids[0] == PENDING else list(row.ids)
        assert ids[: len(ids) - guesses] == said[first : end - guesses]
        for position, token in enumerate(ids, first):
            self._written[row.blocks[position // size]][position % size] = token
        read = [token for block in row.blocks[: -(-end // size)] for token in self._written[block]][:end]
        assert read == [*said[:first], *ids], "it reads what it did not write"
        prompt_count = len(sequence.work.prompt)
        for position in range(first + row.logits_from, min(end, prompt_count - 1)):
            assert position == self._scored[sequence]
            self._scored[sequence] += 1
        if not row.draws:
            return []
        assert end - guesses == len(said), "it draws a token that it has drawn before"
        assert sequence.work.prompt_logprobs is None or self._scored[sequence] == prompt_count - 1
        tokens: list[int] = []
        for guess in [*ids[len(ids) - guesses :], None]:
            tokens.append(drawn([*said, *tokens], sequence.work.choice))
            if guess != tokens[-1]:
                break
        said += tokens
        return tokens

    def _commit(self, row: Row, tokens: list[int]) -> None:
        sequence = row.sequence
        self.scheduler.commit(row, tokens)
        if sequence in self.live:
            assert sequence.ids == self._said[sequence][: len(sequence.ids)]
            assert len(sequence.ids) <= sequence.final_count
            if len(sequence.ids) == sequence.final_count:
                self.leave(sequence)

    def _held(self) -> list[int]:
        return [block for sequence in self.live for block in sequence.blocks]
