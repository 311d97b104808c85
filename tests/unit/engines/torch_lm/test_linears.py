"""Packed linear layers give what plain ones give, and to each row the same bits whatever else is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engines.backends.torch_lm.kernels.choose import available, library
from engines.backends.torch_lm.kernels.reference import TorchKernels
from engines.backends.torch_lm.linears import Gate, Int8, Linears, NativeLinears, Norm
from engines.backends.torch_lm.linears_torch import TorchLinears

Make = Callable[[int], Linears]
CPU = torch.device("cpu")
NATIVE: dict[str, Make] = {name: partial(NativeLinears, library(name), name) for name in available()}
ALL: dict[str, Make] = {**NATIVE, "torch": lambda threads: TorchLinears(TorchKernels(), CPU)}
EVERY = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
IN_C = pytest.mark.parametrize("make", NATIVE.values(), ids=NATIVE)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
SHAPES = ((96, 64), (33, 17), (130, 515))
PRECISION = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
EPS = 1e-5


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def expected(x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm | None, gate: Gate | None) -> Tensor:
    """Returns the result in double precision."""
    wide = x.double()
    if norm is not None:
        wide = functional.rms_norm(wide, wide.shape[1:], norm.weight.double(), norm.eps)
    y = functional.linear(wide, weight.double(), None if bias is None else bias.double())
    if gate is None:
        return y
    gates, ups = y.chunk(2, -1)
    return (functional.silu(gates) if gate == "silu" else functional.gelu(gates, approximate="tanh")) * ups


def assert_close(given: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    apart = (given.double() - wanted).abs().max()
    assert apart <= PRECISION[dtype] * wanted.abs().max().clamp_min(1)


@EVERY
@DTYPES
@pytest.mark.parametrize("gate", [None, "silu", "gelu_tanh"])
def test_a_packed_layer_gives_what_a_plain_one_gives(make: Make, dtype: torch.dtype, gate: Gate | None) -> None:
    linears = make(1)
    for (outputs, inputs), has_bias, has_norm, is_wide in product(SHAPES, (True, False), (True, False), (True, False)):
        if gate and outputs % 2:
            continue
        weight = (noise(outputs, inputs) * inputs**-0.5).to(dtype)
        bias = noise(outputs, seed=1).to(dtype) if has_bias else None
        norm = Norm(noise(inputs, seed=2).abs() + 0.5, EPS) if has_norm else None
        linear = linears.pack(weight, bias, norm=norm, gate=gate, is_wide=is_wide)
        x = noise(37, inputs, seed=3).to(dtype)
        y = linear(x)
        assert y.dtype == (torch.float32 if is_wide else dtype)
        assert_close(y, expected(x, weight, bias, norm, gate), dtype)


@EVERY
@DTYPES
def test_a_layer_may_read_some_rows_and_add_to_others(make: Make, dtype: torch.dtype) -> None:
    weight = (noise(70, 48) * 0.1).to(dtype)
    linear = make(1).pack(weight)
    x, of = noise(20, 48, seed=1).to(dtype), torch.tensor([7, 0, 19, 7])
    assert torch.equal(linear(x, of=of), linear(x[of]))
    onto = noise(20, 70, seed=2).to(dtype)
    before = onto.double()
    assert linear(x, onto=onto) is onto
    assert_close(onto, before + expected(x, weight, None, None, None), dtype)
    wide = noise(20, 96, seed=1).to(dtype)
    wide[:, :48] = x
    assert torch.equal(linear(wide[:, :48]), linear(x))


@IN_C
@DTYPES
def test_a_row_gives_the_same_bits_alone_among_others_and_with_more_threads(make: Make, dtype: torch.dtype) -> None:
    for outputs, inputs in (*SHAPES, (512, 1408)):
        weight = noise(outputs, inputs).to(dtype)
        norm = Norm(torch.ones(inputs), EPS)
        one, two = (make(threads).pack(weight, norm=norm) for threads in (1, 2))
        x = noise(300, inputs, seed=1).to(dtype)
        together = one(x)
        for count in (1, 2, 5, 6, 7, 13, 14, 15, 16, 17, 29, 32, 33, 64, 150, 300):
            assert torch.equal(one(x[300 - count :]), together[300 - count :])
            assert torch.equal(two(x[:count]), together[:count])


@IN_C
def test_callers_on_several_threads_do_not_get_in_one_anothers_way(make: Make) -> None:
    linear = make(2).pack(noise(512, 256))
    inputs = [noise(rows, 256, seed=rows) for rows in (1, 9, 40, 120)]
    expected = [make(1).pack(noise(512, 256))(x) for x in inputs]

    def repeat(index: int) -> bool:
        return all(torch.equal(linear(inputs[index]), expected[index]) for _ in range(50))

    with ThreadPoolExecutor(len(inputs)) as threads:
        assert all(threads.map(repeat, range(len(inputs))))


@IN_C
@pytest.mark.parametrize("gate", [None, "silu"])
@DTYPES
def test_weights_of_eight_bits_stand_for_numbers_times_a_scale(
    make: Make, dtype: torch.dtype, gate: Gate | None
) -> None:
    numbers = torch.randint(-127, 128, (96, 70), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    scale = noise(96, seed=1).abs() * 0.01
    bias = noise(96, seed=2)
    linear = make(1).pack(Int8(numbers, scale, dtype), bias, gate=gate)
    x = noise(33, 70, seed=3).to(dtype)
    assert linear(x).dtype == dtype
    assert_close(linear(x), expected(x, numbers * scale.double()[:, None], bias, None, gate), dtype)
    assert torch.equal(linear(x[3:4]), linear(x)[3:4])


@IN_C
def test_numbers_that_are_none_stay_in_their_row(make: Make) -> None:
    linear = make(1).pack(noise(40, 32))
    x = noise(15, 32)
    clean = linear(x)
    x[3, 5], x[4, 0] = torch.nan, torch.inf
    given = linear(x)
    assert given[3].isnan().all()
    assert not given[4].isfinite().any()
    assert torch.equal(given[:3], clean[:3])
    assert torch.equal(given[5:], clean[5:])


@EVERY
def test_no_rows_give_no_rows(make: Make) -> None:
    assert make(1).pack(noise(40, 32))(torch.empty(0, 32)).shape == (0, 40)


def test_torch_computes_a_single_row_as_it_does_several_where_it_packs_weights() -> None:
    linear = TorchLinears(TorchKernels(), CPU).pack(noise(256, 2048))
    x = noise(9, 2048, seed=1)
    assert torch.equal(linear(x[:1]), linear(x[:2])[:1])


def test_torch_does_without_what_is_private_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.backends.torch_lm.linears_torch._onednn", lambda: None)
    linears = TorchLinears(TorchKernels(), CPU)
    weight, x = noise(40, 32), noise(5, 32, seed=1)
    assert linears.name == "torch"
    assert torch.equal(linears.pack(weight)(x), functional.linear(x, weight))
