"""Makes the models that are measured: directories with random weights, the same ones wherever they are made.

No model here has an end token, so that every output is as long as a load says, whoever makes it. Each id is one word,
so that a prompt given in ids can be given in words as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20
CONTEXT = 2048
_STAMP = ".made"
_LLAMA: Mapping[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "tie_word_embeddings": False,
}
_QWEN3: Mapping[str, Any] = {
    "vocab_size": 32768,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 18,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is measured, and what its users would call good."""

    name: str
    dtype: str  # of weights, activations and cache
    first_token_s: float  # a request is good if its first token took no longer,
    token_s: float  # and each of the others, on average, no longer than this
    mixed_count: int = 128  # requests that its capacity is measured with
    open_s: float = 8.0  # how long requests come in an open load
    family: str = ""  # of transformers; empty for the demo model
    shape: Mapping[str, Any] | None = None


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("demo", "bfloat16", 0.5, 0.05),
        Model("llama-25m-float32", "float32", 0.5, 0.05, family="llama", shape=_LLAMA),
        Model("llama-25m-bfloat16", "bfloat16", 0.5, 0.05, family="llama", shape=_LLAMA),
        Model("qwen3-316m-bfloat16", "bfloat16", 5.0, 0.25, 48, 20.0, "qwen3", _QWEN3),
    )
}


def made(model: Model, under: Path, demo: Path) -> Path:
    """Returns the model's directory, which is written if it is not there yet. `demo`: where the demo model lies."""
    directory = under / model.name
    if not (directory / _STAMP).exists():
        shutil.rmtree(directory, ignore_errors=True)
        if model.shape is None:
            _write_demo(directory, demo)
        else:
            _write_random(directory, model.family, model.dtype, model.shape)
        (directory / _STAMP).touch()
    return directory


def _write_demo(directory: Path, demo: Path) -> None:
    """Writes a copy of the demo model that ends nothing by itself."""
    shutil.copytree(demo, directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    config = _read_json(directory / "config.json")
    _write_json(directory / "config.json", {**config, "eos_token_id": None})
    _write_tokenizer(directory, config["vocab_size"])


def _write_random(directory: Path, family: str, dtype: str, shape: Mapping[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    directory.mkdir(parents=True)
    ends = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
    maker: Any = AutoConfig
    config = maker.for_model(family, max_position_embeddings=CONTEXT, initializer_range=0.05, **ends, **shape)
    torch.manual_seed(SEED)
    factory: Any = AutoModelForCausalLM
    factory.from_config(config).to(getattr(torch, dtype)).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    _write_tokenizer(directory, shape["vocab_size"])


def _write_tokenizer(directory: Path, size: int) -> None:
    """Writes a tokenizer with a word for each id, and no other token."""
    words = {word_of(number): number for number in range(size)}
    split: Mapping[str, Any] = {"type": "WhitespaceSplit"}
    model: Mapping[str, Any] = {"type": "WordLevel", "vocab": words, "unk_token": word_of(0)}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    content: Mapping[str, Any] = {"version": "1.0", "added_tokens": [], **empty, "pre_tokenizer": split, "model": model}
    _write_json(directory / "tokenizer.json", content)
    _write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def vocabulary_size(directory: Path) -> int:
    """Returns how many ids a model knows."""
    return int(_read_json(directory / "config.json")["vocab_size"])


def bytes_read(directory: Path) -> tuple[int, int]:
    """Returns the bytes of the weights that a token passes through, and of the keys and values that it leaves."""
    config = _read_json(directory / "config.json")
    tensors = _read_header(directory / "model.safetensors")
    is_tied = config["tie_word_embeddings"]
    # Of a table of embeddings that is nothing else, a token reads one row.
    read = [tensor for name, tensor in tensors.items() if is_tied or not name.endswith("embed_tokens.weight")]
    weights = sum(end - begin for begin, end in (tensor["data_offsets"] for tensor in read))
    item_bytes = 4 if config["dtype"] == "float32" else 2
    heads = config["num_key_value_heads"] * config["head_dim"]
    return weights, 2 * config["num_hidden_layers"] * heads * item_bytes


def word_of(token: int) -> str:
    """Returns the word that stands for an id."""
    return f"w{token}"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _read_header(path: Path) -> dict[str, Any]:
    """Returns what a safetensors file says about its tensors."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}
