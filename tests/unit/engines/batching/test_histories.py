"""Whatever happens to sequences, blocks are neither lost nor written by two, and no output is lost or said twice."""

import dataclasses
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from engines.model import Work
from tests.support.batching import GREEDY, World

LETTERS = st.integers(0, 1)  # of prompts: so few that they often begin alike


class Histories(RuleBasedStateMachine):
    """`World` checks all that must hold, after each of these."""

    @initialize(
        blocks=st.integers(3, 14),
        block_size=st.sampled_from([1, 2, 4]),
        batch_size=st.integers(1, 5),
        max_batched_tokens=st.integers(1, 12),
        shares_prefixes=st.booleans(),
        ageing_ms=st.sampled_from([1, 100, 10_000]),
        overlaps=st.booleans(),
    )
    def begin(self, *, overlaps: bool, **sizes: Any) -> None:
        self.world = World(**sizes)
        self.overlaps = overlaps
        self.arrived_count = 0

    @rule(
        prompt=st.lists(LETTERS, min_size=1, max_size=14),
        max_tokens=st.integers(1, 14),
        choice_count=st.sampled_from([1, 1, 3]),
        output=st.lists(LETTERS, max_size=2),
        priority=st.integers(-1, 1),
        tenant=st.sampled_from("ab"),
        lasts_ms=st.none() | st.integers(0, 300),
        is_scored=st.booleans(),
    )
    def arrive(
        self,
        *,
        prompt: list[int],
        max_tokens: int,
        choice_count: int,
        output: list[int],
        priority: int,
        tenant: str,
        lasts_ms: int | None,
        is_scored: bool,
    ) -> None:
        self.arrived_count += 1
        for choice in range(choice_count):
            work = Work(
                str(self.arrived_count),
                tuple(prompt),
                max_tokens + len(output),
                GREEDY,
                choice=choice,
                output=tuple(output),
                prompt_logprobs=1 if is_scored else None,
                priority=priority,
                tenant=tenant,
                deadline_s=None if lasts_ms is None else (self.world.now_ms + lasts_ms) / 1000,
            )
            self.world.arrive(work)

    @rule(parks=st.sets(st.integers(0, 4)), waits_ms=st.integers(0, 50))
    def step(self, parks: set[int], waits_ms: int) -> None:
        world = self.world
        world.now_ms += waits_ms
        batch = world.schedule()
        places = {row.sequence: place for place, row in enumerate(batch.rows)}
        if len(world.under_way) > self.overlaps:
            world.compute(lambda row: places.get(row.sequence) in parks)

    @precondition(lambda self: not self.overlaps)
    @rule(counts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=5))
    def step_with_guesses(self, counts: list[tuple[int, int]]) -> None:
        for sequence, (count, right_count) in zip(self.world.live, counts, strict=False):
            self.world.guess(sequence, count, right_count=right_count)
        self.step(parks=set(), waits_ms=0)

    @precondition(lambda self: self.world.live)
    @rule(place=st.integers(0, 50))
    def cancel(self, place: int) -> None:
        self.world.leave(self.world.live[place % len(self.world.live)])

    @precondition(lambda self: self.world.parked)
    @rule(place=st.integers(0, 50))
    def unpark(self, place: int) -> None:
        self.world.unpark(place % len(self.world.parked))

    @rule(max_tokens=st.none() | st.integers(1, 3))
    def fail(self, max_tokens: int | None) -> None:
        self.world.retract()
        self.world.scheduler.limit(max_tokens)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.scheduler.limit(None)
            self.world.finish()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("thousand", range(10))
def test_ten_thousand_histories_leave_every_block_free(thousand: int) -> None:
    for seed in range(1_000 * thousand, 1_000 * (thousand + 1)):
        try:
            happen(Random(seed))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def happen(chance: Random) -> None:
    """Plays one history, to its end."""
    block_size = chance.choice((1, 2, 4))
    world = World(
        blocks=chance.randint(3, 14),
        block_size=block_size,
        batch_size=chance.randint(1, 5),
        max_batched_tokens=chance.randint(1, 12),
        shares_prefixes=chance.random() < 0.8,
        ageing_ms=chance.choice((1, 100, 10_000)),
    )
    overlaps, guesses, parked_share = chance.choice(((True, False, 0.0), (False, True, 0.0), (True, False, 0.3)))
    for number in range(chance.randint(5, 25)):
        world.now_ms += chance.randint(0, 50)
        event = chance.random()
        if event < 0.35:
            arrive(world, chance, str(number), 3 * block_size + 2)
        elif event < 0.43 and world.live:
            world.leave(chance.choice(world.live))
        elif event < 0.48:
            world.retract()
            world.scheduler.limit(chance.choice((1, 2, None)))
        elif event < 0.55 and world.parked:
            world.unpark(chance.randrange(len(world.parked)))
        else:
            for sequence in world.live if guesses else ():
                world.guess(sequence, chance.randint(0, 4), right_count=chance.randint(0, 4))
            world.schedule()
            if len(world.under_way) > overlaps:
                world.compute(lambda _: chance.random() < parked_share)
    world.scheduler.limit(None)
    world.finish()


def arrive(world: World, chance: Random, key: str, most: int) -> None:
    """Adds a request of one or more choices."""
    output = tuple(chance.choices((0, 1), k=chance.choice((0, 0, 2))))
    work = Work(
        key,
        tuple(chance.choices((0, 1), k=chance.randint(1, most))),
        chance.randint(1, most) + len(output),
        GREEDY,
        output=output,
        priority=chance.choice((0, 0, 1, -1)),
        tenant=chance.choice("ab"),
        deadline_s=None if chance.random() < 0.7 else (world.now_ms + chance.randint(0, 300)) / 1_000,
        prompt_logprobs=None if chance.random() < 0.8 else 1,
    )
    for choice in range(chance.choice((1, 1, 3))):
        world.arrive(dataclasses.replace(work, choice=choice))
