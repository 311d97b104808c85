"""Decides what every step computes."""

from __future__ import annotations

from collections.abc import Sequence as Run
from dataclasses import dataclass

from engines.batching.batch import Batch, Row
from engines.batching.blocks import BlockPool
from engines.batching.prefixes import Prefixes
from engines.batching.rows import UNKNOWN, chunk, chunk_end, decodes, guess, guess_count
from engines.batching.running import Running
from engines.batching.sequence import Sequence, Stage
from engines.batching.tenants import OUTPUT_WEIGHT, PROMPT_WEIGHT, Tenants
from engines.batching.waiting import Waiting

AGEING_MS = 5_000


@dataclass(frozen=True, slots=True)
class Freed:
    """The pool's counter around a release."""

    before: int
    after: int


class Scheduler:
    """Keeps the sequences that wait and those that run, and lets what is computed of each chase what is known of it.

    A step takes one token of every sequence that decodes, then chunks of the prompts that run, and then lets others
    join whose whole prompt finds blocks. Blocks are taken as they are needed. Whoever finds none takes them from the
    last in rank, which waits again and is computed again: nothing that it has said is lost.

    One batch may be in flight while the next one is made. Each row of a batch is given back, by `commit` in the order
    of the batches, or by `retract` in any order; those of a sequence that was removed since count for nothing.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        batch_size: int,
        max_batched_tokens: int,
        shares_prefixes: bool = True,
        prefix_key: bytes = b"",
        ageing_ms: int = AGEING_MS,
    ) -> None:
        """Without `shares_prefixes`, only the choices of one request share blocks.

        prefix_key: of the digests by which blocks are found; to be random where users do not trust each other.
        ageing_ms: for each time that it has waited so long, a sequence counts as one priority higher.
        """
        assert batch_size > 0
        assert max_batched_tokens > 0
        self.pool = pool
        self.preemption_count = 0
        self._prefixes = Prefixes(pool, shares=shares_prefixes, key=prefix_key)
        self._tenants = Tenants()
        self._waiting = Waiting(ageing_ms)
        self._running = Running(pool, self._prefixes, self._put_out)
        self._landing: list[Sequence] = []
        self._max_tokens = self._most_tokens = max_batched_tokens
        self._max_running = min(batch_size, max_batched_tokens)  # more could not all decode in one step
        self._watermark = pool.total // 100  # blocks that joining leaves free, for those that run to grow into
        self._arrival_count = 0

    @property
    def max_running(self) -> int:
        """The most sequences that run at a time."""
        return self._max_running

    @property
    def running_count(self) -> int:
        """Sequences that hold blocks, or wait for one that is being computed. May be read from any thread."""
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        """Sequences that have not joined yet, or were put out. May be read from any thread."""
        return len(self._waiting) + len(self._landing)

    def can_hold(self, sequence: Sequence) -> bool:
        """Tells whether a sequence may be added: the whole pool is enough for it."""
        return self.pool.blocks_for(sequence.final_count - 1) <= self.pool.total  # the last token is never read

    def add(self, sequence: Sequence, now_ms: int = 0) -> None:
        """Lets a sequence wait."""
        assert sequence.stage is Stage.GONE
        assert self.can_hold(sequence)
        self._arrival_count += 1
        sequence.number, sequence.arrived_ms = self._arrival_count, now_ms
        sequence.account = self._tenants.enter(sequence.work.tenant)
        self._wait(sequence)

    def remove(self, sequence: Sequence) -> Freed:
        """Takes a sequence out, wherever it is, and frees the blocks that nobody shares with it."""
        before = self.pool.free_count
        if sequence.stage is Stage.RUNNING:
            self._running.leave(sequence)
        elif sequence.stage is Stage.WAITING:
            self._waiting.remove(sequence)
        else:
            self._landing.remove(sequence)
        sequence.stage = Stage.GONE
        self._tenants.leave(sequence.account)
        return Freed(before, self.pool.free_count)

    def limit(self, max_tokens: int | None) -> None:
        """Lets a step compute no more than so many tokens, but at least 1; None: as many as at the beginning."""
        self._max_tokens = self._most_tokens if max_tokens is None else max(1, min(max_tokens, self._most_tokens))

    # A step.

    def next_batch(self, now_ms: int = 0) -> Batch:
        """Returns what the next step computes; its rows are in flight then.

        Empty only if all that could run is in flight or parked.
        """
        while True:
            before = self.preemption_count
            rows = self._rows(now_ms)
            if rows or self.preemption_count == before:  # else what waited for blocks of those put out may go on now
                return Batch(tuple(rows))

    def commit(self, row: Row, tokens: Run[int]) -> None:
        """Says that a row was computed, and which tokens were drawn behind it.

        tokens: none unless it `draws`; behind guesses, as many as were right and one more, or less if the output ends.
        """
        sequence = row.sequence
        sequence.in_flight_count -= 1
        if sequence.epoch != row.epoch:  # its blocks are not its own any more; what it has said stays said
            if sequence.stage is Stage.LANDING:
                self._take(row, tokens)
                self._land(sequence)
            return
        end = row.first_position + len(row.ids)
        if row.draft_count:
            assert not sequence.in_flight_count, "guesses and overlapping steps exclude each other"
            end += len(tokens) - 1 - row.draft_count  # what is computed of wrong ones is written over
            sequence.scheduled_count = end
        sequence.computed_count = end
        self._take(row, tokens)
        if end - sequence.registered_count * self.pool.block_size >= self.pool.block_size:
            self._prefixes.register(sequence)

    def computed(self, row: Row) -> None:
        """Says that a row was computed, and that `commit` follows later, when its token is there.

        Its sequence is parked until then, but whoever waits for what it has computed may go on.
        """
        sequence = row.sequence
        assert not row.draft_count
        if sequence.epoch == row.epoch:
            sequence.computed_count = row.first_position + len(row.ids)
            self._prefixes.register(sequence)

    def retract(self, batch: Batch) -> None:
        """Says that a batch was not computed. Guesses are dropped.

        A later one that relied on it is retracted, too, before or after it, but before the next one is made.
        """
        for row in batch.rows:
            sequence = row.sequence
            sequence.in_flight_count -= 1
            if sequence.epoch == row.epoch:
                sequence.scheduled_count = min(sequence.scheduled_count, row.first_position)
            elif sequence.stage is Stage.LANDING:
                self._land(sequence)

    def _rows(self, now_ms: int) -> list[Row]:
        single: list[Row] = []
        longer: list[Row] = []
        size, before, left = self.pool.block_size, self.preemption_count, self._max_tokens
        # Each that decodes has one token; prompts and guesses share the rest.
        spare = left - sum(map(decodes, self._running))
        for sequence in self._running:
            first = sequence.scheduled_count
            if first + 1 < len(sequence.ids):
                spare -= self._chunk(sequence, spare, longer)
            elif left > 0 and decodes(sequence):
                if first == len(sequence.blocks) * size and not self._running.room(sequence, first + 1):
                    break  # it was the last one, and was put out
                left -= 1
                if sequence.draft:
                    spare -= self._guess(sequence, spare, longer)
                    continue
                ids = (sequence.ids[first],) if first < len(sequence.ids) else UNKNOWN
                single.append(Row(sequence, ids, first, sequence.blocks, 0, 0, sequence.epoch))
                sequence.scheduled_count = first + 1
                sequence.in_flight_count += 1
        while spare > 0 and self.preemption_count == before:  # else what joined now would likely be put out next
            joined = self._join(now_ms)
            if joined is None:
                break
            spare -= self._chunk(joined, spare, longer)
        return single + sorted(longer, key=lambda row: len(row.ids) > 1)

    def _chunk(self, sequence: Sequence, most: int, rows: list[Row]) -> int:
        """Schedules up to so many of its known tokens; returns how many."""
        if most <= 0 or self._prefixes.reuse(sequence):
            return 0
        end = self._running.room(sequence, chunk_end(sequence, most))
        if end <= sequence.scheduled_count:
            return 0  # it was put out
        rows.append(chunk(sequence, end))
        return len(rows[-1].ids)

    def _guess(self, sequence: Sequence, most: int, rows: list[Row]) -> int:
        """Schedules its last token, for which there is room, and up to so many guesses; returns how many of these."""
        last = sequence.scheduled_count + 1
        end = self._running.room(sequence, last + guess_count(sequence, most))
        rows.append(guess(sequence, end - last))
        return end - last

    def _join(self, now_ms: int) -> Sequence | None:
        """Lets the next one run, if there is a place and blocks for all its tokens. Nobody overtakes it."""
        sequence = self._waiting.first(now_ms) if len(self._running) < self._max_running else None
        if sequence is None:
            return None
        need = self._prefixes.need(sequence)
        kept = self._running.reserved_count + self._watermark if self._running else 0
        if need.new_count + need.idle_count + kept > self.pool.free_count:
            return None
        if sequence.epoch == 0:  # else it has been charged
            sequence.account.token_count += PROMPT_WEIGHT * need.token_count
        self._waiting.remove(sequence)
        sequence.aged_priority = self._waiting.aged(sequence, now_ms)
        sequence.stage = Stage.RUNNING
        self._running.join(sequence, need.new_count)
        return sequence

    # What becomes of a sequence.

    def _put_out(self, sequence: Sequence) -> None:
        self.preemption_count += 1
        sequence.stage = Stage.LANDING
        self._landing.append(sequence)
        self._land(sequence)

    def _land(self, sequence: Sequence) -> None:
        if not sequence.in_flight_count:
            self._landing.remove(sequence)
            self._wait(sequence)

    def _wait(self, sequence: Sequence) -> None:
        sequence.stage = Stage.WAITING
        self._waiting.add(sequence)

    @staticmethod
    def _take(row: Row, tokens: Run[int]) -> None:
        sequence = row.sequence
        assert bool(tokens) == row.draws
        if tokens:
            sequence.ids += tokens
            sequence.account.token_count += OUTPUT_WEIGHT * len(tokens)
        if not sequence.is_scored and row.logits_from < len(row.ids) - row.draws:
            sequence.scored_count = min(row.first_position + len(row.ids), len(sequence.work.prompt) - 1)
