"""What the order of waiting and the ranks of running come to over many steps."""

from collections import Counter

import pytest

from tests.support.batching import World, sequence_of


def make_world(*, blocks: int = 12, batch_size: int = 4, ageing_ms: int = 100) -> World:
    return World(blocks=blocks, block_size=4, batch_size=batch_size, max_batched_tokens=32, ageing_ms=ageing_ms)


def given(world: World, step_count: int, tenants: dict[str, tuple[int, int, int]]) -> Counter[str]:
    """Keeps so many sequences of each tenant alive, with so long a prompt and output; returns its tokens computed."""
    counts: Counter[str] = Counter()
    number = 0
    for _ in range(step_count):
        alive = Counter(sequence.work.tenant for sequence in world.live)
        for tenant, (sequence_count, prompt, max_tokens) in tenants.items():
            for _ in range(sequence_count - alive[tenant]):
                number += 1
                world.arrive(sequence_of([number] * prompt, max_tokens, key=str(number), tenant=tenant).work)
        for row in world.schedule().rows:
            counts[row.sequence.work.tenant] += len(row.ids)
        world.compute()
        world.now_ms += 10
    return counts


def test_a_tenant_that_sends_ten_times_as_much_is_given_no_more() -> None:
    counts = given(make_world(), 600, {"flood": (40, 4, 8), "modest": (4, 4, 8)})
    assert counts["modest"] == pytest.approx(counts["flood"], rel=0.02)


def test_a_tenant_with_long_requests_is_given_no_more_than_one_with_short_ones() -> None:
    counts = given(make_world(batch_size=2), 900, {"long": (4, 4, 16), "short": (4, 4, 2)})
    # A request of theirs is computed in 5 and in 19 tokens; an output's token counts as four of a prompt's.
    assert counts["short"] / 5 * (4 + 2 * 4) == pytest.approx(counts["long"] / 19 * (4 + 16 * 4), rel=0.02)


def test_what_a_tenant_does_not_use_others_may() -> None:
    assert given(make_world(), 100, {"alone": (8, 4, 8)}).total() > 4 * 100  # each of four places, in each step


def test_who_has_left_is_owed_nothing_when_it_comes_again() -> None:
    world = make_world()
    first, other = (sequence_of([1, 2, 3], 20, key=tenant, tenant=tenant).work for tenant in ("first", "other"))
    left, stays = world.arrive(first), world.arrive(other)
    assert left is not None
    assert stays is not None
    world.leave(left)
    for _ in range(5):
        world.schedule()
        world.compute()
    again = world.arrive(first)
    assert again is not None
    assert again.account.token_count == stays.account.token_count > 20


@pytest.mark.parametrize("blocks", [12, 4], ids=["enough-blocks", "too-few-blocks"])
def test_a_low_priority_is_served_beside_an_endless_row_of_high_ones(blocks: int) -> None:
    world = make_world(blocks=blocks, batch_size=2)
    low = world.arrive(sequence_of([0] * 4, 10, key="low", priority=-5).work)
    step_count = number = 0
    while low in world.live:
        while len(world.live) < 6:
            number += 1
            world.arrive(sequence_of([number] * 4, 8, key=str(number), priority=5).work)
        world.schedule()
        world.compute()
        world.now_ms += 10
        step_count += 1
        assert step_count < 1_000
    assert step_count > 100  # ten priorities at ten steps each


def test_every_one_of_many_sequences_ends_although_there_are_blocks_for_few() -> None:
    world = make_world(blocks=7, batch_size=7)
    for number in range(40):
        world.arrive(sequence_of([number] * (1 + number % 9), 12, key=str(number), priority=number % 3).work)
    world.finish()
    assert world.scheduler.preemption_count > 10
