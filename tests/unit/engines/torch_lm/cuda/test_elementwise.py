"""Norms, gates and rotations are what plain torch makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.kernels.interface import HeadNorm
from engines.backends.torch_lm.kernels.reference import TorchKernels
from tests.unit.engines.torch_lm.cuda.scenes import DEVICE, TOLERANCES, Layer, is_close, marks, scene

pytest.importorskip("triton", reason="Triton is not installed here")
pytestmark = marks

from engines.backends.torch_lm.cuda.attend import TritonAttention  # noqa: E402
from engines.backends.torch_lm.cuda.elementwise import TritonKernels  # noqa: E402
from engines.backends.torch_lm.cuda.reference import TorchAttention  # noqa: E402

FORMATS = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
OURS, PLAIN = TritonKernels(), TorchKernels()


def some(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*sizes).to(dtype).to(DEVICE)


@FORMATS
@pytest.mark.parametrize("dim", [64, 96, 1024])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm(dtype: torch.dtype, dim: int, offset: float) -> None:
    torch.manual_seed(0)
    x, weight = some(5, dim, dtype=dtype), some(dim)
    found = OURS.rms_norm(x, weight, 1e-5, offset=offset)
    assert is_close(found, PLAIN.rms_norm(x.cpu(), weight.cpu(), 1e-5, offset=offset).double())
    part = some(5, 2 * dim, dtype=dtype)[:, dim:]  # of a wider matrix
    assert is_close(OURS.rms_norm(part, weight, 1e-5), PLAIN.rms_norm(part.cpu(), weight.cpu(), 1e-5).double())


@FORMATS
def test_a_norm_of_a_sum_keeps_the_sum(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, weight, sums = some(3, 80, dtype=dtype), some(80), some(3, 80, dtype=dtype)
    expected_sums = sums.cpu().clone()
    expected = PLAIN.rms_norm(x.cpu(), weight.cpu(), 1e-5, residual=expected_sums)
    assert is_close(OURS.rms_norm(x, weight, 1e-5, residual=sums), expected.double())
    assert is_close(sums, expected_sums.double())  # the interpreter does not round to bfloat16, but cuts off


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_layer_norm(has_bias: bool) -> None:
    torch.manual_seed(2)
    x, weight, bias = some(3, 96) + 4, some(96), some(96) if has_bias else None
    expected = PLAIN.layer_norm(x.cpu(), weight.cpu(), None if bias is None else bias.cpu(), 1e-5)
    assert is_close(OURS.layer_norm(x, weight, bias, 1e-5), expected.double())


@FORMATS
@pytest.mark.parametrize("dim", [96, 1500])
def test_gates(dtype: torch.dtype, dim: int) -> None:
    torch.manual_seed(3)
    gate_up = 3 * some(4, 2 * dim, dtype=dtype)
    assert is_close(OURS.silu_mul(gate_up), PLAIN.silu_mul(gate_up.cpu()).double())
    assert is_close(OURS.gelu_tanh_mul(gate_up), PLAIN.gelu_tanh_mul(gate_up.cpu()).double())


LAYERS = {
    "all of a head is rotated": (Layer(), 32, False),
    "a part of it is": (Layer(key_dim=80, value_dim=80), 16, False),
    "nothing is": (Layer(), 0, False),
    "normed first": (Layer(heads=6, key_dim=96, value_dim=64), 48, True),
    "normed and not rotated": (Layer(), 0, True),
    "bfloat16": (Layer(heads=14, dtype=torch.bfloat16), 32, True),
}


@pytest.mark.parametrize(("layer", "half", "is_normed"), LAYERS.values(), ids=LAYERS)
def test_queries_are_turned_in_place_and_keys_on_their_way_into_the_cache(
    layer: Layer, half: int, is_normed: bool
) -> None:
    step = scene(layer, [9, 40], [1, 7])
    keys, values = step.keys.clone(), step.values.clone()
    width = (layer.heads + layer.kv_heads) * layer.key_dim + layer.kv_heads * layer.value_dim
    qkv = some(8, width, dtype=layer.dtype)
    cos, sin = (some(8, half), some(8, half)) if half else (None, None)
    norm = HeadNorm(some(layer.key_dim), some(layer.key_dim), 1e-5, offset=1.0) if is_normed else None
    shape = Shape(0, 1.0, None, None, None)
    plain = TorchAttention(keys, values, shape, layer.heads)
    expected = plain.write_qkv(qkv.clone(), step.tables, cos, sin, norm)
    ours = TritonAttention(step.keys, step.values, shape, layer.heads, context=64, multiprocessors=1)
    assert is_close(ours.write_qkv(qkv, step.tables, cos, sin, norm), expected.double().cpu())
    written = step.tables.slots.long()
    for found, wanted in ((step.keys, keys), (step.values, values)):
        assert is_close(found.flatten(0, 1)[written], wanted.flatten(0, 1)[written].double().cpu())
        assert torch.equal(found.isnan(), wanted.isnan())
