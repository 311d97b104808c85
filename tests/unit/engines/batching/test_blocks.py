import pytest

from engines.batching.blocks import BlockPool


def test_blocks_are_handed_out_once_until_they_are_given_back() -> None:
    pool = BlockPool(6, 16)
    first, second = pool.allocate(2), pool.allocate(4)
    assert sorted(first + second) == list(range(6))
    pool.release(first)
    assert sorted(pool.allocate(2)) == sorted(first)


def test_free_and_used_blocks_add_up_to_the_total() -> None:
    pool = BlockPool(6, 16)
    held = pool.allocate(4)
    assert (pool.free_count, pool.used_count) == (2, 4)
    pool.release(held)
    assert (pool.free_count, pool.used_count) == (6, 0)


def test_giving_a_block_back_twice_is_a_fault() -> None:
    pool = BlockPool(6, 16)
    held = pool.allocate(1)
    pool.release(held)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(held)


def test_taking_more_blocks_than_are_free_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="7 blocks wanted, 6 free"):
        BlockPool(6, 16).allocate(7)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_tokens_need_whole_blocks(tokens: int, blocks: int) -> None:
    assert BlockPool(6, 16).blocks_for(tokens) == blocks
