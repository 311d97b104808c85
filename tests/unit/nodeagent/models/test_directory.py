"""What is found out about a model directory, and what is said of a broken one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.models.directory import Model, read_model
from nodeagent.models.safetensors import Broken, Weights
from nodeagent.models.sizes import Sizes
from tests.support.model_files import CONFIG, write_raw, write_weights

INDEX = "model.safetensors.index.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model of two tensors, whole."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    write_weights(tmp_path / "model.safetensors", "a", "b")
    return tmp_path


def shard(directory: Path) -> None:
    """Spreads the model over two files with an index."""
    (directory / "model.safetensors").unlink()
    write_weights(directory / "one.safetensors", "a")
    write_weights(directory / "two.safetensors", "b")
    names = {"a": "one.safetensors", "b": "two.safetensors"}
    (directory / INDEX).write_text(json.dumps({"weight_map": names}))


def configure(**changes: Any) -> Callable[[Path], object]:
    """Returns what changes the configuration; None removes."""
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    return lambda directory: (directory / "config.json").write_text(json.dumps(config))


def test_a_whole_directory_is_understood(directory: Path) -> None:
    sizes = Sizes(
        linear_parameter_count=0,
        tied_parameter_count=0,
        largest_tensor_parameter_count=6,
        hidden_size=192,
        intermediate_size=4 * 192,
        query_size=8 * 32,
        vocabulary_size=0,
        layer_count=4,
        quantization_method="",
    )
    assert read_model(directory) == Model("qwen3", Weights(24, 12, {"bfloat16": 24}), 2048, 2 * 4 * 2 * 32, sizes)


def test_a_model_in_several_files_is_the_sum_of_them(directory: Path) -> None:
    whole = read_model(directory)
    shard(directory)
    assert read_model(directory) == whole


def test_the_format_is_that_of_most_of_the_weights(directory: Path) -> None:
    write_raw(
        directory / "model.safetensors",
        {
            "norm": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "rest": {"dtype": "F16", "shape": [6], "data_offsets": [8, 20]},
        },
        bytes(20),
    )
    assert read_model(directory).weights.dtype == "float16"


FAMILIES = {
    "heads that share nothing": (configure(num_key_value_heads=None), 2 * 4 * 8 * 32),
    "no size of a head": (configure(head_dim=None), 2 * 4 * 2 * 24),
    "the words of gpt2": (
        lambda directory: (directory / "config.json").write_text(
            json.dumps({"model_type": "gpt2", "n_positions": 2048, "n_layer": 4, "n_head": 8, "n_embd": 64})
        ),
        2 * 4 * 8 * 8,
    ),
    "falcon's one head for all": (configure(num_key_value_heads=None, multi_query=True), 2 * 4 * 1 * 32),
    "a model that sees as well": (
        lambda directory: (directory / "config.json").write_text(
            json.dumps({"model_type": "x", "text_config": CONFIG})
        ),
        2 * 4 * 2 * 32,
    ),
}


@pytest.mark.parametrize(("change", "kv_elements"), FAMILIES.values(), ids=FAMILIES)
def test_families_say_the_same_in_different_words(
    directory: Path, change: Callable[[Path], object], kv_elements: int
) -> None:
    change(directory)
    model = read_model(directory)
    assert (model.context_tokens, model.kv_elements_per_token) == (2048, kv_elements)


LONG = {"rope_type": "longrope", "long_factor": [4.0], "original_max_position_embeddings": 512}
LONG_BY_FAMILY = {"type": "su", "long_factor": [4.0]}
ROPES = {
    "long factors": (configure(rope_parameters=LONG), 512),
    "long factors, in older words": (configure(rope_scaling=LONG), 512),
    "long factors for some layers": (configure(rope_parameters={"full_attention": LONG, "other": None}), 512),
    "the smaller of two limits": (configure(rope_parameters=LONG, original_max_position_embeddings=256), 256),
    "no limit": (configure(rope_parameters=LONG_BY_FAMILY), 2048),
    "the limit of phi": (
        configure(rope_scaling=LONG_BY_FAMILY, model_type="phi3", max_position_embeddings=131072),
        4096,
    ),
    "a limit beyond the context": (configure(rope_parameters={**LONG, "original_max_position_embeddings": 4096}), 2048),
    "other factors": (configure(rope_scaling={"type": "yarn", "original_max_position_embeddings": 512}), 2048),
    "none": (configure(rope_scaling=None), 2048),
}


@pytest.mark.parametrize(("change", "context_tokens"), ROPES.values(), ids=ROPES)
def test_the_context_ends_where_positions_would_turn_by_other_factors(
    directory: Path, change: Callable[[Path], object], context_tokens: int
) -> None:
    change(directory)
    assert read_model(directory).context_tokens == context_tokens


@pytest.mark.parametrize("names", [["tokenizer.json"], ["tokenizer.model"], ["vocab.json", "merges.txt"]])
def test_a_tokenizer_may_come_in_several_shapes(directory: Path, names: list[str]) -> None:
    (directory / "tokenizer.json").unlink()
    for name in names:
        (directory / name).write_text('{"model": {}}')
    read_model(directory)


def truncate(name: str, size: int) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:size])


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text)


def remove(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


def tensor(**changes: Any) -> Callable[[Path], object]:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}
    return lambda directory: write_raw(directory / "model.safetensors", header, bytes(8))


def sharded(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def breaking(directory: Path) -> None:
        shard(directory)
        change(directory)

    return breaking


BROKEN = {
    "no config": (remove("config.json"), "config.json is missing"),
    "a config that is cut short": (truncate("config.json", 9), "config.json is no JSON"),
    "a config of something else": (write("config.json", "{}"), "config.json: it has no model_type"),
    "a config without a context": (configure(max_position_embeddings=None), "config.json: it has none of max_position"),
    "a config without layers": (configure(num_hidden_layers=None), "config.json: it has none of num_hidden_layers"),
    "a config with an impossible number": (configure(num_hidden_layers="4"), "num_hidden_layers is '4'"),
    "a config with an impossible switch": (
        configure(rope_scaling={**LONG, "original_max_position_embeddings": "512"}),
        "original_max_position_embeddings is '512'",
    ),
    "a config with a negative number": (configure(head_dim=-32), "head_dim is -32"),
    "no weights": (remove("model.safetensors"), "there is no *.safetensors file"),
    "weights in another format": (
        lambda directory: (directory / "model.safetensors").rename(directory / "pytorch_model.bin"),
        "there is pytorch_model.bin: convert it",
    ),
    "an empty file of weights": (truncate("model.safetensors", 0), "model.safetensors: it is cut short"),
    "a header that is cut short": (truncate("model.safetensors", 20), "model.safetensors: it is cut short"),
    "weights that are cut short": (truncate("model.safetensors", -1), "it has 23 bytes of weights, not 24"),
    "something else": (write("model.safetensors", "this is not a file of weights"), "no safetensors file"),
    "a header that is no JSON": (
        lambda directory: (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{{"),
        "model.safetensors: its header is no JSON",
    ),
    "a header that is no table": (
        lambda directory: write_raw(directory / "model.safetensors", [1], b""),
        "model.safetensors: its header is no table",
    ),
    "a tensor without a shape": (tensor(shape=None), "does not describe the tensor a"),
    "a tensor with words for a place": (tensor(data_offsets=["0", "8"]), "does not describe the tensor a"),
    "a tensor in an impossible place": (tensor(data_offsets=[8, 0]), "impossible offsets"),
    "a shard that is missing": (sharded(remove("two.safetensors")), "two.safetensors is missing"),
    "a shard that lacks a tensor": (
        sharded(lambda directory: write_weights(directory / "two.safetensors", "c")),
        "two.safetensors: it lacks 1 tensors that the index promises, b",
    ),
    "an index without a map": (sharded(write(INDEX, "{}")), f"{INDEX}: it has no weight_map"),
    "an index that is cut short": (sharded(truncate(INDEX, 10)), f"{INDEX} is no JSON"),
    "an index that leaves the directory": (
        sharded(write(INDEX, '{"weight_map": {"a": "../one.safetensors"}}')),
        "outside of the directory",
    ),
    "no tokenizer": (remove("tokenizer.json"), "there is no tokenizer"),
    "a tokenizer that is cut short": (truncate("tokenizer.json", 5), "tokenizer.json is no JSON"),
    "a tokenizer of something else": (write("tokenizer.json", "{}"), "tokenizer.json: it has no model"),
}


@pytest.mark.parametrize(("breaking", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_directory_is_refused_with_the_name_of_the_file(
    directory: Path, breaking: Callable[[Path], object], said: str
) -> None:
    breaking(directory)
    with pytest.raises(Broken) as caught:
        read_model(directory)
    assert said in str(caught.value)
