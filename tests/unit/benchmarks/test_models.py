"""The models that are measured hold what the roofline counts."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.support.models import Model, bytes_read, made, vocabulary_size, word_of
from engines.demo_model import MODEL_DIR
from engines.text.generation_config import end_ids

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "tie_word_embeddings": False,
}
LAYER = 16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 24 + 2 * 16  # queries and outputs, keys and values, MLP, norms


def test_a_random_model_is_made_once_and_ends_nothing_by_itself(tmp_path: Path) -> None:
    model = Model("small", "bfloat16", 1.0, 1.0, family="llama", shape=SHAPE)
    directory = made(model, tmp_path, MODEL_DIR)
    first = (directory / "model.safetensors").stat().st_mtime_ns
    assert made(model, tmp_path, MODEL_DIR) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == first
    assert end_ids(directory) == frozenset()
    assert vocabulary_size(directory) == 96


def test_a_token_reads_all_weights_but_the_other_rows_of_the_embeddings(tmp_path: Path) -> None:
    directory = made(Model("small", "bfloat16", 1.0, 1.0, family="llama", shape=SHAPE), tmp_path, MODEL_DIR)
    weights = 2 * LAYER + 16 + 96 * 16  # layers, last norm, head
    assert bytes_read(directory) == (2 * weights, 2 * 2 * 8 * 2)
    tied = made(
        Model("tied", "float32", 1.0, 1.0, family="llama", shape={**SHAPE, "tie_word_embeddings": True}),
        tmp_path,
        MODEL_DIR,
    )
    assert bytes_read(tied) == (4 * weights, 2 * 2 * 8 * 4)


def test_every_id_is_a_word(tmp_path: Path) -> None:
    directory = made(Model("demo", "bfloat16", 1.0, 1.0), tmp_path, MODEL_DIR)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [0, 7, vocabulary_size(directory) - 1]
    assert tokenizer(" ".join(map(word_of, ids))).input_ids == ids
    assert end_ids(directory) == frozenset()
