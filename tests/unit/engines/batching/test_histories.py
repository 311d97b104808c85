"""Whatever happens to sequences, blocks are neither lost nor shared."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work

BLOCKS, BLOCK_SIZE = 12, 4
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(BLOCKS, BLOCK_SIZE)
        self.scheduler = Scheduler(self.pool, batch_size=4, max_batched_tokens=10)
        self.live: list[Sequence] = []
        self.ended: list[Sequence] = []
        self.arrived_count = 0

    @rule(prompt=st.integers(1, 30), max_tokens=st.integers(1, 18))
    def arrive(self, prompt: int, max_tokens: int) -> None:
        sequence = Sequence(Work(str(self.arrived_count), tuple(range(prompt)), max_tokens, GREEDY))
        self.scheduler.add(sequence)
        self.live.append(sequence)
        self.arrived_count += 1

    @rule(ends_early=st.sets(st.integers(0, 3)))
    def step(self, ends_early: set[int]) -> None:
        batch = self.scheduler.next_batch()
        assert bool(batch.rows) == bool(self.live)
        assert batch.token_count <= 10
        written: list[tuple[int, int]] = []
        for place, row in enumerate(batch.rows):
            sequence = row.sequence
            assert sequence in self.live
            assert list(row.ids) == sequence.ids[row.first_position : row.first_position + len(row.ids)]
            positions = range(row.first_position, row.first_position + len(row.ids))
            written += [(row.blocks[each // BLOCK_SIZE], each % BLOCK_SIZE) for each in positions]
            sequence.advance(len(row.ids))
            if row.needs_logits:
                sequence.append(1)
            if sequence.output_count == sequence.work.max_tokens or place in ends_early:
                self.end(sequence)
        assert len(set(written)) == len(written)

    @rule(place=st.integers(0, 50))
    def cancel(self, place: int) -> None:
        if self.live:
            self.end(self.live[place % len(self.live)])

    def end(self, sequence: Sequence) -> None:
        held = len(sequence.blocks)
        freed = self.scheduler.remove(sequence)
        assert freed.after - freed.before == held
        self.live.remove(sequence)
        self.ended.append(sequence)

    @invariant()
    def free_and_used_add_up(self) -> None:
        assert self.pool.free_count + self.pool.used_count == BLOCKS
        held = [block for sequence in self.live for block in sequence.blocks]
        assert len(set(held)) == len(held) == self.pool.used_count

    @invariant()
    def what_has_ended_holds_nothing(self) -> None:
        assert not any(sequence.blocks for sequence in self.ended)
        assert self.scheduler.running_count + self.scheduler.waiting_count == len(self.live)

    @invariant()
    def nobody_overtakes(self) -> None:
        has_joined = [bool(sequence.blocks) for sequence in self.live]  # in order of arrival
        assert has_joined == sorted(has_joined, reverse=True)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
