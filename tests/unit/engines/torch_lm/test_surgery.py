"""What is put into a model is recognized by what it computes, and computes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from engines.backends.torch_lm import adopt as adoption
from engines.backends.torch_lm.adopt import Adopted, Means, adopt
from engines.backends.torch_lm.attention import IMPLEMENTATION, register
from engines.backends.torch_lm.even import Even, evenly
from engines.backends.torch_lm.experts import Experts
from engines.backends.torch_lm.fused.parts import Mlp
from engines.backends.torch_lm.fused.recognize import parts_of
from engines.backends.torch_lm.kernels.choose import choose
from engines.backends.torch_lm.kernels.reference import TorchKernels
from engines.backends.torch_lm.linears import Linears
from engines.backends.torch_lm.linears_torch import TorchLinears
from engines.backends.torch_lm.norms import gate_of, norm_of
from engines.backends.torch_lm.place import linears_for
from engines.backends.torch_lm.rotary import LookedUp
from engines.backends.torch_lm.surgery import KernelNorm, PackedLinear, operate
from engines.backends.torch_lm.trial import Trial, some_ids
from engines.backends.torch_lm.weight import PackedWeight
from engines.backends.torch_lm.weights import read_config, read_model
from tests.support.tiny_models import CONTEXT

Directory = Callable[[str], Path]
CPU = torch.device("cpu")
USUAL = ["gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen3"]
WITH_EXPERTS = ["gpt_oss", "mixtral", "qwen3_moe"]


def model_of(directory: Path) -> Any:
    return read_model(directory, read_config(directory), torch.float32, CPU)


def means() -> Means:
    kernels = choose("auto", CPU)
    return Means(kernels, linears_for(kernels, CPU))


def attending(model: Any) -> Any:
    register()
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def kinds(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize("family", [*USUAL, *WITH_EXPERTS, "gpt2"])
def test_a_model_after_the_operation_gives_what_it_gave(family: str, model_directory: Directory) -> None:
    model, ids = model_of(model_directory(family)), torch.tensor([some_ids(30, 320, 1)])
    before = model(input_ids=ids, use_cache=False).logits
    with torch.inference_mode():
        operate(model, linears_for(TorchKernels(), CPU), TorchKernels(), CONTEXT)
        after = model(input_ids=ids, use_cache=False).logits
    assert torch.allclose(before, after, atol=1e-4)
    assert not {nn.Linear, nn.SiLU} & kinds(model)
    expected = {PackedLinear, Even} if family == "gpt2" else {PackedLinear, KernelNorm, LookedUp}
    assert expected <= kinds(model)
    if family in WITH_EXPERTS:
        assert Experts in kinds(model)
        routers = [module for module in model.modules() if isinstance(getattr(module, "weight", None), PackedWeight)]
        assert len(routers) == 3
    left = {name for name, parameter in model.named_parameters() if parameter.dim() > 1}
    assert left <= {"model.embed_tokens.weight", "transformer.wte.weight", "transformer.wpe.weight"}


class Scaled(nn.Module):
    """A norm that looks like the usual one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.eps, self._norm = norm.weight, 1e-5, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = 1.01 * self._norm(x)
        return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_norm_is_known_by_what_it_computes(dtype: torch.dtype, model_directory: Directory) -> None:
    weight = (torch.rand(64) + 0.5).to(dtype)
    usual = nn.RMSNorm(64, eps=1e-5, dtype=dtype).requires_grad_(False)
    usual.weight.copy_(weight)
    found = norm_of(usual)
    assert found is not None
    assert torch.equal(found.weight, weight.float())
    assert found.eps == 1e-5
    gemma = model_of(model_directory("gemma2")).to(dtype).model.norm
    shifted = norm_of(gemma)
    assert shifted is not None
    assert torch.equal(shifted.weight, 1 + gemma.weight.float())
    usual.eps = None  # then it is the least of the dtype, which nobody says
    others = [usual, nn.LayerNorm(64), nn.LayerNorm(64, bias=False), Scaled(nn.RMSNorm(64)), nn.Linear(64, 64)]
    assert [norm_of(each.requires_grad_(False)) for each in others] == [None] * 5


def test_gates_are_known_by_what_they_compute() -> None:
    functions: list[Any] = [nn.SiLU(), nn.GELU(approximate="tanh"), nn.GELU(), nn.ReLU(), lambda x: x[:, 5], None]
    assert [gate_of(function) for function in functions] == ["silu", "gelu_tanh", None, None, None, None]


@pytest.mark.parametrize("function", [functional.silu, torch.sigmoid, functional.gelu], ids=lambda each: each.__name__)
@pytest.mark.parametrize("width", [7, 96, 128, 40_000])
def test_an_even_function_gives_a_row_the_same_bits_wherever_it_is(
    function: Callable[[torch.Tensor], torch.Tensor], width: int
) -> None:
    x = 3 * torch.randn(33, width, generator=torch.Generator().manual_seed(0))
    together = evenly(function, x)
    assert torch.allclose(together, function(x))
    for row in (0, 1, 17, 32):
        assert torch.equal(evenly(function, x[row : row + 1]), together[row : row + 1])
    assert torch.equal(evenly(function, x[5:]), together[5:])


@pytest.mark.parametrize("family", USUAL)
def test_the_usual_decoder_is_recognized(family: str, model_directory: Directory) -> None:
    parts = parts_of(attending(model_of(model_directory(family))), 3)
    assert parts is not None
    assert all(isinstance(layer.mlp, Mlp) for layer in parts.layers)
    assert (parts.layers[0].query_norm is not None) == (family in {"gemma3_text", "qwen3"})
    assert (parts.layers[0].after_mlp is not None) == family.startswith("gemma")


def test_a_decoder_that_is_built_otherwise_is_not_recognized(model_directory: Directory) -> None:
    assert parts_of(attending(model_of(model_directory("gpt2"))), 3) is None
    model = attending(model_of(model_directory("qwen3")))
    model.model.layers[1].self_attn.q_norm = nn.LayerNorm(16)
    assert parts_of(model, 3) is None
    model = attending(model_of(model_directory("llama")))
    model.model.layers[1].adapter = nn.Linear(64, 64)
    assert parts_of(model, 3) is None


# The same modules, of which the code makes something else: every fourth layer does not rotate; neighbours are rotated
# together; numbers are multiplied with others on their way.
UNUSUAL: Mapping[str, Mapping[str, Any]] = {
    "smollm3": {"num_hidden_layers": 4, "pad_token_id": 0},
    "helium": {"head_dim": 16},
    "embeddings": {"embedding_multiplier": 1.1},
    "residuals": {"residual_multiplier": 0.9},
    "logits": {"logits_scaling": 1.2},
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_decoder_whose_code_does_something_else_is_not_recognized_in_half_precision_either(name: str) -> None:
    sizes: dict[str, Any] = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, **UNUSUAL[name]}
    maker: Any = AutoConfig
    family = name if name in {"smollm3", "helium"} else "granite"
    config = maker.for_model(family, **sizes)
    factory: Any = AutoModelForCausalLM

    def model(dtype: torch.dtype) -> Any:
        torch.manual_seed(0)
        return attending(factory.from_config(config).to(dtype).eval().requires_grad_(False))

    assert parts_of(model(torch.bfloat16), config.num_hidden_layers) is None
    assert adopt(lambda: model(torch.bfloat16), CPU, means(), CONTEXT).way == "modules"


def logits_of(adopted: Adopted, used: Means) -> torch.Tensor:
    trial = Trial(adopted.forward, adopted.layers, blocks=8, dtype=torch.float32, device=CPU, kernels=used.kernels)
    first, second = (trial.sequence(some_ids(20, 320, seed), range(3 * seed, 3 * seed + 3)) for seed in (0, 1))
    steps = [trial.step((first, 3)), trial.step((second, 1), (first, 9)), trial.step((first, 1), (second, 7))]
    return torch.cat([each for step in steps for each in step])


@pytest.mark.parametrize("family", [*USUAL, *WITH_EXPERTS])
def test_layers_in_one_call_layers_in_python_and_modules_of_transformers_agree(
    family: str, model_directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = means()

    def adopted() -> Adopted:
        return adopt(lambda: model_of(model_directory(family)), CPU, used, CONTEXT)

    fused = adopted()
    assert fused.way == "fused"
    monkeypatch.setattr("engines.backends.torch_lm.fused.decoder.bind_native", lambda *_: None)
    in_python = logits_of(adopted(), used)
    monkeypatch.undo()
    assert torch.equal(logits_of(fused, used), in_python)
    monkeypatch.setattr(adoption, "parts_of", lambda *_: None)
    modules = adopted()
    assert modules.way == "modules"
    assert torch.allclose(logits_of(modules, used), in_python, atol=1e-3)


def test_a_model_that_is_not_what_it_looks_like_is_read_again(
    model_directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if its embeddings were multiplied with something that is seen in its code alone.
    monkeypatch.setattr(
        "engines.backends.torch_lm.fused.decoder._embed", lambda module: lambda ids: 2 * module.weight[ids]
    )
    reads = []

    def read() -> Any:
        reads.append(1)
        return model_of(model_directory("llama"))

    assert adopt(read, CPU, means(), CONTEXT).way == "modules"
    assert len(reads) == 2


def test_without_kernels_in_c_torch_computes_the_same(model_directory: Directory) -> None:
    linears: Linears = TorchLinears(TorchKernels(), CPU)
    plain, used = Means(TorchKernels(), linears), means()
    first, second = (
        logits_of(adopt(lambda: model_of(model_directory("qwen3")), CPU, each, CONTEXT), each) for each in (plain, used)
    )
    assert torch.allclose(first, second, atol=1e-4)
