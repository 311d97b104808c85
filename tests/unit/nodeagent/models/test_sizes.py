"""What is said of a model that decides how much memory an engine needs for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nodeagent.models.directory import read_model
from nodeagent.models.safetensors import Tensor
from nodeagent.models.sizes import sizes_of
from tests.support.model_files import CONFIG
from tests.support.tiny_models import write_tiny_model

NAMES = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (16, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 32),
    "model.layers.0.mlp.gate.weight": (4, 8),
    "model.layers.0.mlp.experts.0.up_proj.weight": (64, 8),
    "model.layers.0.mlp.experts.gate_up_proj": (4, 8, 64),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.self_attn.q_proj.bias": (16,),
}


def tensors(**more: tuple[int, ...]) -> list[Tensor]:
    """Returns those above, and more by names with underlines for dots."""
    names = {**NAMES, **{name.replace("__", "."): shape for name, shape in more.items()}}
    return [Tensor(name, "bfloat16", shape, 0) for name, shape in names.items()]


def test_linear_layers_are_counted_without_embeddings_experts_and_norms() -> None:
    sizes = sizes_of(CONFIG, CONFIG, tensors(lm_head__weight=(100, 8)))
    assert sizes.linear_parameter_count == 16 * 8 + 8 * 32
    assert sizes.largest_tensor_parameter_count == 4 * 8 * 64


def test_a_family_without_linear_layers_has_none_to_quantize() -> None:
    assert sizes_of({**CONFIG, "model_type": "gpt2"}, CONFIG, tensors()).linear_parameter_count == 0


@pytest.mark.parametrize(
    ("more", "tied_count"),
    [({}, 100 * 8), ({"lm_head__weight": (100, 8)}, 0), ({"embed_out__weight": (100, 8)}, 0)],
    ids=["no output layer in the files", "one of its own", "one by another name"],
)
def test_an_output_layer_that_no_file_holds_is_tied_to_the_embeddings(more: Any, tied_count: int) -> None:
    assert sizes_of(CONFIG, CONFIG, tensors(**more)).tied_parameter_count == tied_count


WIDTHS: dict[str, tuple[dict[str, Any], int]] = {
    "as it says": ({"intermediate_size": 96}, 96),
    "nothing said": ({}, 4 * 192),
    "the words of gpt2, and nothing said": ({"n_inner": None}, 4 * 192),
    "each layer its own": ({"intermediate_size": [96, 128, 64]}, 128),
    "experts together": ({"intermediate_size": 96, "num_experts_per_tok": 8, "moe_intermediate_size": 32}, 256),
    "experts of the dense width": ({"intermediate_size": 96, "num_experts_per_tok": 2}, 192),
    "a wide dense layer among experts": (
        {"intermediate_size": 512, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        512,
    ),
    "an expert for all": (
        {
            "intermediate_size": 96,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
        },
        192,
    ),
    "what is no number": ({"intermediate_size": "wide"}, 4 * 192),
}


@pytest.mark.parametrize(("said", "width"), WIDTHS.values(), ids=WIDTHS)
def test_the_widest_feed_forward_is_found_whatever_the_family_calls_it(said: dict[str, Any], width: int) -> None:
    assert sizes_of(CONFIG, {**CONFIG, **said}, tensors()).intermediate_size == width


def test_how_a_checkpoint_is_quantized_is_told() -> None:
    quantized = {**CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    assert sizes_of(quantized, CONFIG, tensors()).quantization_method == "gptq"
    assert sizes_of({**CONFIG, "quantization_config": None}, CONFIG, tensors()).quantization_method == ""


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "phi3", "gpt_oss", "qwen3_moe", "mixtral"])
def test_the_sizes_of_every_family_are_those_that_torch_finds(family: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    directory = write_tiny_model(tmp_path, family)
    factory: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model: Any = factory.from_config(AutoConfig.from_pretrained(directory))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    linears = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each is not head]
    model.tie_weights()
    sizes = read_model(directory).sizes
    assert sizes.vocabulary_size == head.weight.shape[0]
    assert sizes.hidden_size == head.weight.shape[1]
    assert sizes.layer_count == 3
    assert sizes.tied_parameter_count == (embedding.weight.numel() if head.weight is embedding.weight else 0)
    assert sizes.linear_parameter_count == sum(each.weight.numel() for each in linears)
