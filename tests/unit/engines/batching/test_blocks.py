import pytest

from engines.batching.blocks import BlockPool


def take(pool: BlockPool, count: int) -> list[int]:
    return [pool.allocate() for _ in range(count)]


def fill(pool: BlockPool, contents: str) -> list[int]:
    """Takes a block for each letter, which it holds from then on."""
    blocks = take(pool, len(contents))
    for block, content in zip(blocks, contents, strict=True):
        pool.register(block, content.encode())
    return blocks


def held(pool: BlockPool, contents: str) -> str:
    return "".join(content for content in contents if pool.holds(content.encode()))


def test_blocks_are_handed_out_once_until_they_are_given_back() -> None:
    pool = BlockPool(6, 16)
    first, second = take(pool, 2), take(pool, 4)
    assert sorted(first + second) == list(range(6))
    pool.release(first)
    assert sorted(take(pool, 2)) == sorted(first)


def test_free_and_used_blocks_add_up_to_the_total() -> None:
    pool = BlockPool(6, 16)
    blocks = take(pool, 4)
    assert (pool.free_count, pool.used_count) == (2, 4)
    pool.release(blocks)
    assert (pool.free_count, pool.used_count) == (6, 0)


def test_giving_a_block_back_twice_is_a_fault() -> None:
    pool = BlockPool(6, 16)
    blocks = take(pool, 1)
    pool.release(blocks)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(blocks)


def test_taking_more_blocks_than_are_free_is_a_fault() -> None:
    pool = BlockPool(6, 16)
    take(pool, 6)
    with pytest.raises(AssertionError, match="no block is free"):
        pool.allocate()


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_tokens_need_whole_blocks(tokens: int, blocks: int) -> None:
    assert BlockPool(6, 16).blocks_for(tokens) == blocks


def test_a_shared_block_is_free_when_nobody_references_it_any_more() -> None:
    pool = BlockPool(6, 16)
    (block,) = fill(pool, "a")
    assert pool.share(b"a") == block
    pool.release([block])
    assert pool.used_count == 1
    pool.release([block])
    assert pool.used_count == 0


def test_a_free_block_is_found_by_what_it_holds() -> None:
    pool = BlockPool(6, 16)
    (block,) = fill(pool, "a")
    assert not pool.is_idle(b"a")
    pool.release([block])
    assert pool.is_idle(b"a")
    assert pool.share(b"a") == block
    assert (pool.free_count, pool.used_count) == (5, 1)


def test_what_no_block_holds_is_not_found() -> None:
    pool = BlockPool(6, 16)
    assert pool.share(b"a") is None
    assert not pool.is_idle(b"a")


def test_blocks_that_hold_nothing_are_given_first() -> None:
    pool = BlockPool(4, 16)
    pool.release(fill(pool, "ab"))
    take(pool, 2)
    assert held(pool, "ab") == "ab"


def test_of_blocks_that_hold_something_the_one_unused_for_longest_is_given_first() -> None:
    pool = BlockPool(3, 16)
    first, second, third = fill(pool, "abc")
    for block in (second, first, third):
        pool.release([block])
    pool.share(b"b")
    pool.release([second])  # used again just now
    kept = []
    for _ in range(3):
        pool.allocate()
        kept.append(held(pool, "abc"))
    assert kept == ["bc", "b", ""]


def test_of_one_sequence_the_end_is_given_first() -> None:
    pool = BlockPool(3, 16)
    pool.release(fill(pool, "abc"))
    pool.allocate()
    assert held(pool, "abc") == "ab"


def test_of_two_blocks_that_hold_the_same_the_first_is_found() -> None:
    pool = BlockPool(3, 16)
    (first,) = fill(pool, "a")
    (second,) = fill(pool, "a")
    pool.release([second])
    assert pool.share(b"a") == first
    assert sorted([*take(pool, 2), first]) == [0, 1, 2]  # the second is as good as any
