"""Model directories with random weights, small enough to be made by a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

CONTEXT = 256
END, BEGIN = "<|end|>", "<|begin|>"
_CORPUS = ["the quick brown fox jumps over the lazy dog and runs home, ", "naïve café, über 10 €, 日本語 🦊 "] * 20
_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<|begin|>{{ message.role }}: {{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant: {% endif %}"
)
_COMMON: Mapping[str, Any] = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
_MLP: Mapping[str, Any] = {"intermediate_size": 96, "max_position_embeddings": CONTEXT}
_GROUPED: Mapping[str, Any] = {**_COMMON, **_MLP, "num_key_value_heads": 2}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "qwen3": {**_GROUPED, "head_dim": 16, "tie_word_embeddings": True},
    "llama": _GROUPED,
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT},
    # A window shorter than the prompts; logits that are capped; a sink in each head.
    "mistral": {**_GROUPED, "sliding_window": 8},
    "gemma2": {**_GROUPED, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
    "gpt_oss": {
        **_GROUPED,
        "head_dim": 16,
        "sliding_window": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gemma3_text": {
        **_GROUPED,
        "head_dim": 16,
        "sliding_window": 8,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "phi3": _GROUPED,
    # Experts: many small ones, and few large ones.
    "qwen3_moe": {
        **_GROUPED,
        "head_dim": 16,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    },
    "mixtral": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    # Brings its own attention, which cannot be replaced.
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4},
}


def byte_level_tokenizer() -> Tokenizer:
    """Returns a tokenizer like those of GPT-2 and Qwen: a character may be spread over several ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END, BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def byte_fallback_tokenizer() -> Tokenizer:
    """Returns a tokenizer like that of Llama 2: what it does not know is written in ids of single bytes."""
    characters = sorted({char for text in _CORPUS for char in text if char.isascii() and char != " "})
    vocabulary = [END, BEGIN, *[f"<0x{byte:02X}>" for byte in range(256)], "▁", *characters, "th", "the", "▁the"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges, byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    spaces = decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([END, BEGIN])
    return tokenizer


def write_tokenizer(directory: Path, tokenizer: Tokenizer, *, chat_template: str | None = _TEMPLATE) -> Path:
    """Writes what `AutoTokenizer` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": BEGIN}
    if chat_template is not None:
        config["chat_template"] = chat_template
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def write_tiny_model(directory: Path, family: str, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Writes a whole model directory with random weights, wide enough for outputs that differ."""
    tokenizer = byte_level_tokenizer()
    write_tokenizer(directory, tokenizer)
    end = tokenizer.token_to_id(END)
    ids = {"eos_token_id": end, "pad_token_id": end, "bos_token_id": tokenizer.token_to_id(BEGIN)}
    maker: Any = AutoConfig
    config = maker.for_model(family, vocab_size=320, initializer_range=0.3, **ids, **FAMILIES[family])
    torch.manual_seed(seed)
    factory: Any = AutoModelForCausalLM
    factory.from_config(config).to(dtype).save_pretrained(directory)
    return directory
