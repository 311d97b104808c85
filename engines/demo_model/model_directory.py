"""Writes a model directory that transformers, vLLM and our engine load."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from engines.demo_model import MODEL_DIR
from engines.demo_model.rendering import END_OF_TEXT, TURN_END

CONTEXT = 2048
TEMPLATE = MODEL_DIR / "chat_template.jinja"  # written by hand; a new model gets a copy
_ROPE_THETA = 10_000.0


def new_model(tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    """Returns an untrained model of about 3 M parameters that fits the tokenizer."""
    config = Qwen3Config(
        vocab_size=-(-tokenizer.get_vocab_size() // 64) * 64,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(TURN_END),
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
    )
    return Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]


def write_model_directory(directory: Path, model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> None:
    """Writes weights in bfloat16, configuration, tokenizer and chat template; replaces what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    weights.pop("lm_head.weight")  # tied to the embedding
    unfinished = directory / "model.safetensors.unfinished"
    save_file(weights, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)  # safetensors writes for the owner alone, and a wheel would keep that
    unfinished.replace(directory / "model.safetensors")
    tokenizer.save(str(directory / "tokenizer.json"))
    template = TEMPLATE.read_text(encoding="utf-8")
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_json(directory / "config.json", _config(model.config))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config())
    _write_json(directory / "generation_config.json", _generation_config(tokenizer))


def _config(config: Qwen3Config) -> dict[str, object]:
    # Both spellings of the rotary base and the dtype, because transformers 4 and 5 each read only one of them.
    described: dict[str, object] = config.to_diff_dict()
    return described | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "rope_theta": _ROPE_THETA,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
    }


def _generation_config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "do_sample": False,
        "eos_token_id": [tokenizer.token_to_id(TURN_END)],
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
