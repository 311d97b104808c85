"""What the kernels compute is what attention is, over the shapes, options and number formats that models have.

On a GPU these are tests like others; elsewhere Triton's interpreter runs them: see test_interpreter.
"""

import pytest
import torch

from engines.backends.torch_lm.cuda.tables import Tables
from tests.unit.engines.torch_lm.cuda.scenes import Layer, Scene, is_close, marks, scene

pytest.importorskip("triton", reason="Triton is not installed here")
pytestmark = marks

from engines.backends.torch_lm.cuda.kernels.decode import decode  # noqa: E402
from engines.backends.torch_lm.cuda.kernels.prefill import prefill  # noqa: E402
from engines.backends.torch_lm.cuda.kernels.write import write_kv  # noqa: E402

LAYERS = {
    "plain": Layer(),
    "a head for each key": Layer(heads=2),
    "a group of seven": Layer(heads=14),
    "a group of more than 16": Layer(heads=20, kv_heads=1, key_dim=32, value_dim=32),
    "dim 32": Layer(key_dim=32, value_dim=32),
    "dim 80": Layer(key_dim=80, value_dim=80),
    "dim 96": Layer(key_dim=96, value_dim=96),
    "dim 128": Layer(key_dim=128, value_dim=128),
    "dim 160": Layer(key_dim=160, value_dim=160),
    "dim 256": Layer(key_dim=256, value_dim=256),
    "values narrower than keys": Layer(key_dim=96, value_dim=64),
    "a window": Layer(window=24),
    "a window of one": Layer(window=1),
    "a soft cap": Layer(softcap=3.0),
    "sinks": Layer(has_sinks=True),
    "everything": Layer(heads=6, key_dim=80, value_dim=48, window=40, softcap=5.0, has_sinks=True),
    "small blocks": Layer(block_size=8),
    "large blocks": Layer(block_size=64),
    "bfloat16": Layer(dtype=torch.bfloat16),
    "float16": Layer(dtype=torch.float16),
    "bfloat16, everything": Layer(window=40, softcap=5.0, has_sinks=True, dtype=torch.bfloat16),
}
EVERY = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
SOME = pytest.mark.parametrize("layer", [LAYERS["plain"], LAYERS["everything"]], ids=["plain", "everything"])


def run(step: Scene, *, parts: int = 1) -> torch.Tensor:
    """Writes and attends as a layer does."""
    write_kv(step.new_keys, step.new_values, step.keys, step.values, step.tables.slots)
    output = step.query.new_full((*step.query.shape[:2], step.values.shape[3]), torch.nan)
    if step.tables.single_count:
        decode(step.shape, step.query, step.keys, step.values, step.tables, parts, output)
    if len(step.tables.tile_sequences):
        prefill(step.shape, step.query, step.keys, step.values, step.tables, output)
    return output


@EVERY
def test_single_queries_see_all_keys_before_them(layer: Layer) -> None:
    step = scene(layer, [1, 17, 150], [1, 1, 1])
    assert is_close(run(step), step.expected)


@EVERY
def test_chunks_see_what_came_before_them_and_themselves(layer: Layer) -> None:
    step = scene(layer, [5, 70, 61], [5, 37, 2])
    assert is_close(run(step), step.expected)


@SOME
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_in_how_many_parts_keys_are_read_changes_nothing(layer: Layer, parts: int) -> None:
    step = scene(layer, [1, 128, 129, 300, 600], [1] * 5)
    assert is_close(run(step, parts=parts), step.expected)


@SOME
def test_single_queries_and_chunks_go_side_by_side(layer: Layer) -> None:
    step = scene(layer, [3, 200, 40, 65, 33], [1, 1, 40, 2, 33])
    assert is_close(run(step, parts=2), step.expected)


def test_a_chunk_of_many_tiles_is_whole() -> None:
    step = scene(Layer(key_dim=32, value_dim=32), [230], [190])
    assert is_close(run(step), step.expected)


def test_what_nobody_wrote_is_not_touched() -> None:
    step = scene(Layer(), [5, 40], [5, 3])
    before = step.keys.isnan().sum()
    run(step)
    assert before - step.keys.isnan().sum() == 8 * 2 * 64


def test_queries_and_keys_may_lie_head_by_head_or_token_by_token() -> None:
    step = scene(Layer(), [4, 50], [1, 9])
    step.query = step.query.transpose(0, 1).contiguous().transpose(0, 1)
    step.new_keys = step.new_keys.contiguous()
    assert is_close(run(step), step.expected)


def test_a_row_that_pads_a_batch_writes_into_a_block_of_its_own_and_changes_nobody() -> None:
    step = scene(Layer(), [9, 30], [1, 1])
    tables, (trash, size) = step.tables, (len(step.keys) - 1, 16)
    alone = run(step)[:2]
    step.keys = torch.cat([step.keys, step.keys[:1]])
    step.values = torch.cat([step.values, step.values[:1]])
    trash = len(step.keys) - 1

    def longer(numbers: torch.Tensor, *more: int) -> torch.Tensor:
        return torch.cat([numbers, numbers.new_tensor(more)])

    step.tables = Tables(
        slots=longer(tables.slots, trash * size, trash * size),
        kv_lengths=longer(tables.kv_lengths, 1, 1),
        block_starts=longer(tables.block_starts, len(tables.blocks), len(tables.blocks)),
        blocks=longer(tables.blocks, trash),
        single_count=4,
        query_starts=tables.query_starts,
        tile_sequences=tables.tile_sequences,
        tile_begins=tables.tile_begins,
    )
    step.query = torch.cat([step.query, step.query])
    step.new_keys = torch.cat([step.new_keys, step.new_keys], dim=1)
    step.new_values = torch.cat([step.new_values, step.new_values], dim=1)
    assert torch.equal(run(step)[:2], alone)
