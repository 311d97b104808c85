"""A step's tensors say where its tokens stand, and whose logits are wanted."""

import torch

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import KvCache, LayerShape
from engines.backends.torch_lm.kernels.rows import Rows
from engines.backends.torch_lm.step import Step
from engines.batching.batch import Batch, Row
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work
from tests.support.paged_attention import CPU

SEQUENCE = Sequence(Work("a", (1,), max_tokens=1, sampling=Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)))


def row(ids: list[int], first: int, blocks: list[int], logits_from: int) -> Row:
    return Row(SEQUENCE, tuple(ids), first, blocks, logits_from)


def cache() -> KvCache:
    return KvCache({0: LayerShape(1, 4, 4)}, blocks=10, block_size=4, dtype=torch.float32, device=CPU)


def test_rows_become_tensors() -> None:
    step = Step(
        Batch(
            (row([7], 9, [3, 1, 8], 0), row([5, 6, 7], 3, [2, 0], 3), row([4, 4, 4], 0, [9], 1), row([1], 0, [5], 1))
        ),
        cache(),
        CPU,
    )
    assert step.ids.tolist() == [[7, 5, 6, 7, 4, 4, 4, 1]]
    assert step.positions.tolist() == [[9, 3, 4, 5, 0, 1, 2, 0]]
    assert step.wanted.tolist() == [0, 5, 6]
    assert step.rows.starts.tolist() == [0, 1, 4, 7, 8]
    assert step.rows.lengths.tolist() == [10, 6, 3, 1]
    assert step.rows.blocks.tolist() == [[3, 1, 8], [2, 0, 0], [9, 0, 0], [5, 0, 0]]
    assert step.rows.slots.tolist() == [33, 11, 0, 1, 36, 37, 38, 20]


def test_a_step_without_rows_has_no_tokens() -> None:
    step = Step(Batch(()), cache(), CPU)
    assert step.ids.shape == step.positions.shape == (1, 0)
    assert step.wanted.tolist() == []
    assert step.rows.groups == []


def test_plain_torch_attends_to_rows_of_like_length_together() -> None:
    counts, lengths = [1, 1, 5, 1, 1], [100, 3000, 40, 120, 1600]
    rows = Rows(counts, lengths, [list(range(-(-length // 4))) for length in lengths], 4, CPU)
    assert [group.tokens.tolist() for group in rows.groups] == [[0, 7], [8, 1], [2, 3, 4, 5, 6]]
    assert [group.slots.shape[1] for group in rows.groups] == [120, 3000, 40]
    assert rows.groups[2].positions.tolist() == [[35, 36, 37, 38, 39]]


def test_layers_that_attend_are_counted_and_write_before_they_read() -> None:
    step = Step(Batch((row([1, 2], 0, [0], 2), row([3], 0, [1], 1))), cache(), CPU)
    keys = values = torch.arange(12.0).view(1, 1, 3, 4)
    shape = Shape(0, 1.0, None, None, None)
    seen = step(shape, torch.zeros(1, 2, 3, 4), keys, values)
    assert step.attended_count == 1
    assert seen.shape == (1, 3, 2, 4)
    assert seen[0, :, 0, 0].tolist() == [0, 2, 8]
