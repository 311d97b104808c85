"""Attention over the paged cache is what a few lines of float64 say, in every cut, whoever else is there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.torch_lm.cache import KvCache, LayerShape
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.kernels.rows import Rows
from tests.support.kernels import EVERY, NATIVE, kernels_of
from tests.support.paged_attention import CPU, Layer, Step, Tokens, attend, expected, tokens_of

TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 0.03, torch.float16: 0.004}
# Of sums that go through the dtype only at their end.
CLOSE = {torch.float32: 5e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}

dims = st.sampled_from([1, 3, 8, 16, 20, 32, 64, 80, 96, 128, 256, 272])
layers = st.builds(
    lambda group, kv_heads, **rest: Layer(heads=group * kv_heads, kv_heads=kv_heads, **rest),
    group=st.sampled_from([1, 2, 3, 4, 7, 12]),
    kv_heads=st.integers(1, 3),
    key_dim=dims,
    value_dim=dims,
    block_size=st.sampled_from([1, 3, 4, 8, 16, 32, 48]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    window=st.none() | st.integers(1, 90),
    softcap=st.none() | st.floats(1, 60),
    has_sinks=st.booleans(),
)


@st.composite
def cuts(draw: st.DrawFn, lengths: list[int]) -> list[Step]:
    """Returns steps that compute sequences of these lengths, mixed at will."""
    left, steps = list(lengths), list[Step]()
    while any(left):
        most = draw(st.sampled_from([1, 3, 40]))
        step = [(index, draw(st.integers(1, min(rest, most)))) for index, rest in enumerate(left) if rest]
        step = draw(st.permutations(step))[: draw(st.integers(1, len(step)))]
        for index, count in step:
            left[index] -= count
        steps.append(step)
    return steps


def at_once(kernels: Kernels, layer: Layer, tokens: Tokens) -> torch.Tensor:
    return attend(kernels, layer, [tokens], [[(0, len(tokens.keys))]], seed=0)[0]


@EVERY
@settings(max_examples=40, deadline=None)
@given(data=st.data(), layer=layers, lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_attention_is_what_float64_says(name: str, data: st.DataObject, layer: Layer, lengths: list[int]) -> None:
    sequences = [tokens_of(layer, length, seed) for seed, length in enumerate(lengths)]
    seen = attend(kernels_of(name), layer, sequences, data.draw(cuts(lengths)), seed=1)
    tolerance = (TOLERANCE if name == "torch" else CLOSE)[layer.dtype]
    for output, tokens in zip(seen, sequences, strict=True):
        wanted = expected(layer, tokens)
        assert (output.double() - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))


@NATIVE
@settings(max_examples=40, deadline=None)
@given(data=st.data(), layer=layers, lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_neither_chunks_nor_neighbours_nor_blocks_change_a_bit(
    name: str, data: st.DataObject, layer: Layer, lengths: list[int]
) -> None:
    kernels = kernels_of(name)
    sequences = [tokens_of(layer, length, seed) for seed, length in enumerate(lengths)]
    alone = [at_once(kernels, layer, tokens) for tokens in sequences]
    mixed = attend(kernels, layer, sequences, data.draw(cuts(lengths)), seed=2)
    assert all(map(torch.equal, alone, mixed))


@NATIVE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("window", [None, 700])
def test_long_contexts_are_the_same_in_every_cut_and_for_every_number_of_threads(
    name: str, dtype: torch.dtype, window: int | None
) -> None:
    layer = Layer(heads=4, kv_heads=2, key_dim=16, value_dim=16, dtype=dtype, window=window)
    tokens = tokens_of(layer, 1700, seed=0)
    whole = at_once(kernels_of(name), layer, tokens)
    close = CLOSE[dtype] * float(whole.abs().max())
    assert (whole.double() - expected(layer, tokens)).abs().max() <= max(close, 5e-6)
    for threads in (1, 2, 3, 8):
        chunks = [[(0, count)] for count in (600, 1, 511, 400, 100, *[1] * 88)]
        assert torch.equal(attend(kernels_of(name, threads), layer, [tokens], chunks, seed=threads)[0], whole)


@NATIVE
def test_many_sequences_are_the_same_for_every_number_of_threads(name: str) -> None:
    layer = Layer(dtype=torch.bfloat16)
    lengths = [1 + 37 * index % 200 for index in range(40)]
    sequences = [tokens_of(layer, length, length) for length in lengths]
    steps = [list(enumerate(lengths))]
    one, two, five = (attend(kernels_of(name, threads), layer, sequences, steps, seed=0) for threads in (1, 2, 5))
    assert all(map(torch.equal, one, two))
    assert all(map(torch.equal, one, five))


@NATIVE
@pytest.mark.parametrize("field", ["queries", "keys", "values"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_token_that_is_no_number_is_seen_by_those_that_see_it_and_by_nobody_else(
    name: str, field: str, bad: float
) -> None:
    layer, kernels = Layer(window=50), kernels_of(name)
    spoiled, other = tokens_of(layer, 130, seed=0), tokens_of(layer, 70, seed=1)
    clean = [at_once(kernels, layer, tokens) for tokens in (spoiled, other)]
    getattr(spoiled, field)[40] = bad
    steps = [[(0, 20), (1, 30)], [(1, 1), (0, 60)], [(1, 39), (0, 50)]]
    output, beside = attend(kernels, layer, [spoiled, other], steps, seed=3)
    assert torch.equal(beside, clean[1])
    last = 41 if field == "queries" else 90  # behind those that see it
    assert torch.equal(output[:40], clean[0][:40])
    assert torch.equal(output[last:], clean[0][last:])
    if field != "keys" or bad != bad:  # an infinite key takes all weight, or none
        assert not output[40:last].isfinite().any()


@NATIVE
def test_scores_beyond_all_numbers_are_no_number(name: str) -> None:
    layer = Layer(key_dim=8)
    tokens = tokens_of(layer, 20, seed=0)
    tokens.queries[10] = 1e30
    tokens.keys[:] = tokens.keys.abs() * 1e30
    output = at_once(kernels_of(name), layer, tokens)
    assert output[10].isnan().all()
    assert output[11:].isfinite().all()


@NATIVE
def test_queries_keys_and_values_may_lie_in_any_way(name: str) -> None:
    layer = Layer()
    kept = LayerShape(layer.kv_heads, layer.key_dim, layer.value_dim)
    rows = Rows([40], [40], [[2, 0, 1]], layer.block_size, CPU)
    tokens = tokens_of(layer, 40, seed=0)
    outputs = []
    for first, second in ((0, 0), (0, 1), (1, 2), (0, 2)):
        cache = KvCache({0: kept}, blocks=3, block_size=16, dtype=layer.dtype, device=CPU, kernels=kernels_of(name))
        attention = cache.attention(layer.shape, layer.heads)
        queries, keys, values = (
            each.transpose(first, second).contiguous().transpose(first, second)
            for each in (tokens.queries, tokens.keys, tokens.values)
        )
        attention.write(keys, values, rows)
        outputs.append(attention.attend(queries, rows))
    assert all(torch.equal(output, outputs[0]) for output in outputs)
