"""Norms, activations and rotations in C are those of plain torch, and each row is nobody's business but its own."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from engines.backends.torch_lm.kernels.interface import HeadNorm, Kernels
from engines.backends.torch_lm.kernels.reference import TorchKernels
from engines.backends.torch_lm.kernels.rows import Rows
from tests.support.kernels import NATIVE, kernels_of
from tests.support.paged_attention import CPU, Layer

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
CLOSE = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}  # one number beside the other
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
TORCH = TorchKernels()
# One argument, [rows, dim]; `dim` is even.
FUNCTIONS: dict[str, Callable[[Kernels, Tensor], Tensor]] = {
    "rms_norm": lambda kernels, x: kernels.rms_norm(x, _line(x), 1e-6),
    "gemma's rms_norm": lambda kernels, x: kernels.rms_norm(x, _line(x), 1e-6, offset=1.0),
    "rms_norm with a float32 weight": lambda kernels, x: kernels.rms_norm(x, _line(x).float(), 1e-6),
    "layer_norm": lambda kernels, x: kernels.layer_norm(x, _line(x), _line(x), 1e-5),
    "layer_norm without a bias": lambda kernels, x: kernels.layer_norm(x, _line(x), None, 1e-5),
    "silu_mul": lambda kernels, x: kernels.silu_mul(x),
    "gelu_tanh_mul": lambda kernels, x: kernels.gelu_tanh_mul(x),
}
FUNCTION = pytest.mark.parametrize("function", FUNCTIONS)


def _line(x: Tensor) -> Tensor:
    return torch.linspace(-0.5, 1.5, x.shape[1], dtype=x.dtype)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def close(given: Tensor, wanted: Tensor) -> bool:
    far = (given.double() - wanted.double()).abs()
    return bool((far <= CLOSE[given.dtype] * wanted.double().abs() + 1e-5).all())


@NATIVE
@FUNCTION
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), half=st.integers(4, 300), dtype=dtypes, apart=st.integers(0, 5))
def test_each_is_what_torch_computes(
    name: str, function: str, rows: int, half: int, dtype: torch.dtype, apart: int
) -> None:
    x = numbers(rows, 2 * half + apart, dtype=dtype)[:, : 2 * half]
    assert close(FUNCTIONS[function](kernels_of(name), x), FUNCTIONS[function](TORCH, x))


@NATIVE
@FUNCTION
@DTYPES
def test_a_row_is_the_same_alone_and_for_every_number_of_threads(name: str, function: str, dtype: torch.dtype) -> None:
    x = numbers(37, 2998, dtype=dtype)
    together = FUNCTIONS[function](kernels_of(name, threads=3), x)
    alone = torch.cat([FUNCTIONS[function](kernels_of(name), row[None]) for row in x])
    assert torch.equal(together, alone)


@NATIVE
@FUNCTION
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_holds_no_number_spoils_no_other(name: str, function: str, bad: float) -> None:
    kernels, x = kernels_of(name), numbers(5, 70)
    clean = FUNCTIONS[function](kernels, x)
    x[2, 11] = bad
    spoiled, wanted = FUNCTIONS[function](kernels, x), FUNCTIONS[function](TORCH, x)
    others = [0, 1, 3, 4]
    assert torch.equal(spoiled[others], clean[others])
    assert torch.equal(spoiled.isnan(), wanted.isnan())


@NATIVE
@DTYPES
def test_a_residual_takes_the_sum_and_the_sum_is_normed(name: str, dtype: torch.dtype) -> None:
    kernels, x = kernels_of(name), numbers(6, 200, dtype=dtype)
    ours, theirs = (numbers(6, 300, dtype=dtype, seed=1)[:, :200] for _ in range(2))
    for _ in range(2):
        normed = kernels.rms_norm(x, _line(x), 1e-6, residual=ours)
        assert close(normed, TORCH.rms_norm(x, _line(x), 1e-6, residual=theirs))
        assert torch.equal(ours, theirs)
        normed = kernels.layer_norm(x, _line(x), _line(x), 1e-5, residual=ours)
        assert close(normed, TORCH.layer_norm(x, _line(x), _line(x), 1e-5, residual=theirs))
        assert torch.equal(ours, theirs)


def test_the_reference_is_what_torch_has_by_these_names() -> None:
    x, weight = numbers(4, 66), _line(numbers(1, 66))
    assert close(TORCH.rms_norm(x, weight, 1e-6), functional.rms_norm(x, (66,), weight, 1e-6))
    assert close(TORCH.layer_norm(x, weight, weight, 1e-5), functional.layer_norm(x, (66,), weight, weight, 1e-5))
    assert close(TORCH.silu_mul(x), functional.silu(x[:, :33]) * x[:, 33:])


@NATIVE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_numbers_are_widened_and_narrowed_as_torch_does_it(name: str, dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    for other in (0.0, 1.0, 1e-3, 3e-8, -60000.0):
        x, ours = every[None], torch.full((1, len(every)), other, dtype=dtype)
        wanted = (every.float() + ours.float()).to(dtype)
        kernels_of(name).rms_norm(x, every, 1e-6, residual=ours)
        assert torch.equal(ours.isnan(), wanted.isnan())
        assert torch.equal(ours.nan_to_num(0, 1, -1), wanted.nan_to_num(0, 1, -1))


def _turned(
    kernels: Kernels, layer: Layer, queries: Tensor, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns turned queries, and the cache that has as many turned keys, and values."""
    count, heads, dtype = len(queries), layer.kv_heads, layer.dtype
    keys, values = (numbers(count, heads * dim, dtype=dtype, seed=dim) for dim in (layer.key_dim, layer.value_dim))
    kept_keys = torch.zeros(9, heads, layer.key_dim, 4, dtype=dtype).transpose(2, 3)
    kept_values = torch.zeros(9, heads, 4, layer.value_dim, dtype=dtype)
    attention = kernels.attention(kept_keys, kept_values, heads=layer.heads, scale=1.0)
    rows = Rows([count], [count], [[8, 1, 3, 2, 0, 7, 4]], 4, CPU)
    query = attention.write_qkv(torch.cat([queries, keys, values], dim=1), rows, cos, sin, norm)
    return query, kept_keys, kept_values


@NATIVE
@settings(max_examples=40, deadline=None)
@given(
    dtype=dtypes,
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    key_dim=st.sampled_from([2, 8, 12, 32, 80, 128, 256]),
    value_dim=st.sampled_from([1, 8, 20, 64]),
    half=st.integers(0, 128),
    has_norm=st.booleans(),
    is_wide=st.booleans(),
    offset=st.sampled_from([0.0, 1.0]),
)
def test_queries_and_keys_are_normed_and_rotated_as_torch_does(
    name: str, dtype: torch.dtype, kv_heads: int, group: int, key_dim: int, value_dim: int, half: int,
    has_norm: bool, is_wide: bool, offset: float,
) -> None:  # fmt: skip
    layer = Layer(heads=group * kv_heads, kv_heads=kv_heads, key_dim=key_dim, value_dim=value_dim, dtype=dtype)
    queries, half = numbers(25, layer.heads * key_dim, dtype=dtype, seed=2), min(half, key_dim // 2)
    angles = numbers(25, half + 3)[:, :half]
    weight = torch.linspace(0.5, 1.5, key_dim, dtype=torch.float32 if is_wide else dtype)
    norm = HeadNorm(weight, weight.flip(0), 1e-6, offset) if has_norm else None
    cos, sin = (angles.cos(), angles.sin()) if half else (None, None)
    ours = _turned(kernels_of(name), layer, queries, cos, sin, norm)
    theirs = _turned(TORCH, layer, queries, cos, sin, norm)
    assert all(map(close, ours, theirs))


@NATIVE
@DTYPES
def test_a_token_is_turned_the_same_alone_and_for_every_number_of_threads(name: str, dtype: torch.dtype) -> None:
    layer = Layer(heads=8, kv_heads=2, key_dim=128, value_dim=128, dtype=dtype)
    queries, angles = numbers(25, 1024, dtype=dtype), numbers(25, 64)
    norm = HeadNorm(torch.ones(128), torch.ones(128), 1e-6)
    together, *_ = _turned(kernels_of(name, threads=3), layer, queries, angles.cos(), angles.sin(), norm)
    for index in (0, 11, 24):
        one = slice(index, index + 1)
        alone, *_ = _turned(kernels_of(name), layer, queries[one], angles[one].cos(), angles[one].sin(), norm)
        assert torch.equal(alone, together[one])
