"""Weights in eight bits give nearly what the model gives, and are refused where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engines.backends.torch_lm.adopt import Means, adopt
from engines.backends.torch_lm.kernels.choose import choose
from engines.backends.torch_lm.load import load_model
from engines.backends.torch_lm.place import linears_for
from engines.backends.torch_lm.quantization import quantize
from engines.backends.torch_lm.trial import Trial, some_ids
from engines.backends.torch_lm.weights import read_config, read_model
from roundhouse.kit.errors import InvalidArgument, NotServed
from tests.support.model_bench import alone
from tests.support.outputs import work
from tests.support.tiny_models import CONTEXT
from tests.unit.engines.torch_lm.conftest import KV_CACHE_BYTES, Load

Directory = Callable[[str], Path]
CPU = torch.device("cpu")


def logits(directory: Path, quantization: str) -> torch.Tensor:
    kernels = choose("auto", CPU)

    def read() -> object:
        model = read_model(directory, read_config(directory), torch.float32, CPU)
        quantize(model, quantization)
        return model

    model = adopt(read, CPU, Means(kernels, linears_for(kernels, CPU)), CONTEXT)
    trial = Trial(model.forward, model.layers, blocks=6, dtype=model.dtype, device=CPU, kernels=kernels)
    [given] = trial.step((trial.sequence(some_ids(40, 320, 1), range(6)), 40))
    return given


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_quantized_logits_are_near_those_of_the_model(family: str, model_directory: Directory) -> None:
    pytest.importorskip("torchao")
    exact, near = (logits(model_directory(family), quantization) for quantization in ("", "int8"))
    apart = (exact - near).abs().amax(-1) / exact.abs().amax(-1)
    assert 0 < apart.median() < 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantized_model_is_served_like_any_other(dtype: str, loaded: Load) -> None:
    pytest.importorskip("torchao")
    model, plain = loaded("llama", quantization="int8", dtype=dtype), loaded("llama", dtype=dtype)
    assert model.is_batch_invariant == plain.is_batch_invariant
    assert model.fingerprint != plain.fingerprint
    assert model.parameter_count == plain.parameter_count
    request = work("a", [5, 6, 7], 12)
    assert alone(model, request) == alone(model, request) != [[]]


def test_without_torchao_it_is_refused_by_name(model_directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.backends.torch_lm.quantization.find_spec", lambda _: None)
    with pytest.raises(NotServed, match=r'"int8" needs torchao, .* install roundhouse-serve\[quantization\]'):
        load_model(model_directory("llama"), device="cpu", quantization="int8", kv_cache_bytes=KV_CACHE_BYTES)


def test_what_is_not_known_is_refused(model_directory: Directory) -> None:
    with pytest.raises(InvalidArgument, match='quantization "int3" is unknown: use int8'):
        load_model(model_directory("llama"), device="cpu", quantization="int3", kv_cache_bytes=KV_CACHE_BYTES)
