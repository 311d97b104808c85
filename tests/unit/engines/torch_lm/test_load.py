import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.backends.torch_lm.kernels.choose import available
from engines.backends.torch_lm.load import Loaded, load_model
from engines.backends.torch_lm.runner import TorchRunner
from engines.batching.batch import Batch, Row
from engines.batching.sequence import Sequence
from engines.loading import LoadStage
from roundhouse.kit.errors import InvalidArgument, NoCapacity, NotFound, NotServed, RoundhouseError
from tests.support.outputs import work
from tests.support.tiny_models import CONTEXT

Directories = Callable[[str], Path]


def load(directory: Path, **options: object) -> Loaded:
    settings = {"device": "cpu", "block_size": 8, "kv_cache_bytes": 4 << 20} | options
    return load_model(directory, **settings)  # type: ignore[arg-type]


def copy_of(directory: Path, target: Path) -> Path:
    shutil.copytree(directory, target)
    return target


def rewrite(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def test_a_model_is_described(model_directory: Directories) -> None:
    told: list[Any] = []
    model = load(model_directory("qwen3"), on_stage=lambda *said: told.append(said))
    assert (model.model_type, model.dtype, model.device) == ("qwen3", "float32", "cpu")
    assert (model.max_model_len, model.vocabulary_size) == (CONTEXT, 320)
    assert model.parameter_count == sum(
        tensor.numel() for tensor in load_file(model_directory("qwen3") / "model.safetensors").values()
    )
    bytes_per_block = 3 * 2 * (2 * 16) * 4 * 8  # layers, keys and values, heads x dimension, bytes, tokens
    assert model.total_blocks == (4 << 20) // bytes_per_block
    assert told[0][0] == "reading the configuration"
    counts = {each[1]: each[2] for each in told if len(each) > 2}
    weights, hashed = counts[LoadStage.LOADING_WEIGHTS], counts[LoadStage.HASHING_WEIGHTS]
    assert list(counts) == [LoadStage.LOADING_WEIGHTS, LoadStage.HASHING_WEIGHTS]
    assert weights.done_bytes == weights.total_bytes == model.parameter_count * 4, "all of it was read"
    assert hashed.done_bytes == hashed.total_bytes > weights.total_bytes
    assert [each[1] for each in told if len(each) > 1] == list(LoadStage)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_may_compute_in_half_precision(model_directory: Directories, dtype: str) -> None:
    model = load(model_directory("llama"), dtype=dtype)
    assert model.dtype == dtype
    assert model.total_blocks // 2 == load(model_directory("llama")).total_blocks


def test_the_attention_that_is_asked_for_computes(model_directory: Directories) -> None:
    by_torch, by_default = (load(model_directory("llama"), attention=attention) for attention in ("torch", "auto"))
    assert by_torch.numerics.startswith("fused, attention by torch, linears by ")
    assert available() == [] or by_default.numerics.startswith(f"fused, attention by {available()[0]}, ")
    assert by_torch.fingerprint != by_default.fingerprint or not available()


def test_a_family_with_attention_of_its_own_is_refused_by_name(model_directory: Directories) -> None:
    with pytest.raises(NotServed, match='family "bloom" are not served') as refused:
        load(model_directory("bloom"), max_model_len=64)
    assert "\n" not in refused.value.message


def test_a_family_that_computes_something_else_is_refused(
    model_directory: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the attention of this family needed a scale that ours does not know.
    real: Any = torch.nn.functional.scaled_dot_product_attention

    def unscaled(*tensors: torch.Tensor, scale: float, **options: Any) -> Any:
        return real(*tensors, **options, scale=1.5 * scale)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", unscaled)
    with pytest.raises(NotServed, match=r'family "llama" are not served .* of 32 tokens differ'):
        load(model_directory("llama"), attention="torch")


def test_a_directory_without_a_config_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no config\.json"):
        load(tmp_path / "missing")


@pytest.mark.parametrize("damage", ["config", "weights", "no weights", "tokenizer", "generation", "family", "pickle"])
def test_a_broken_directory_is_refused_in_one_line(model_directory: Directories, tmp_path: Path, damage: str) -> None:
    directory = copy_of(model_directory("llama"), tmp_path / "model")
    weights = directory / "model.safetensors"
    match damage:
        case "config":
            (directory / "config.json").write_text("{", encoding="utf-8")
        case "weights":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "no weights":
            weights.unlink()
        case "tokenizer":
            (directory / "tokenizer.json").write_text("{", encoding="utf-8")
        case "generation":
            (directory / "generation_config.json").write_text("{", encoding="utf-8")
        case "family":
            rewrite(directory / "config.json", model_type="unheard_of")
        case "pickle":
            torch.save(load_file(weights), directory / "pytorch_model.bin")
            weights.unlink()
    with pytest.raises(InvalidArgument, match="repair the model directory") as refused:
        load(directory)
    assert "\n" not in refused.value.message


def test_weights_that_lack_a_tensor_are_refused(model_directory: Directories, tmp_path: Path) -> None:
    directory = copy_of(model_directory("llama"), tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidArgument, match=r"1 tensors are missing, model\.layers\.1\.mlp\.up_proj\.weight first"):
        load(directory)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_model_len": CONTEXT + 1}, InvalidArgument, "the context of the model is 256"),
        ({"dtype": "int3"}, InvalidArgument, "use auto, float32"),
        ({"attention": "triton"}, InvalidArgument, "does not work on cpu: use auto or torch"),
        ({"quantization": "int4"}, InvalidArgument, "use int8, or nothing"),
        ({"kv_cache_bytes": 100_000}, NoCapacity, "one sequence may have 256"),
    ],
    ids=["context", "dtype", "attention", "quantization", "cache"],
)
def test_what_cannot_be_had_is_refused(
    model_directory: Directories, options: dict[str, object], error: type[RoundhouseError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(model_directory("qwen3"), **options)


def test_a_shorter_context_needs_a_smaller_cache(model_directory: Directories) -> None:
    model = load(model_directory("qwen3"), max_model_len=16, kv_cache_bytes=100_000)
    assert (model.max_model_len, model.total_blocks) == (16, 16)


@pytest.mark.parametrize(
    ("config", "defaults"),
    [
        ({}, (None, None, None)),
        ({"do_sample": False}, (0.0, None, None)),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}, (0.6, 0.95, 20)),
        ({"do_sample": True, "top_k": -1}, (None, None, 0)),
    ],
    ids=["nothing", "greedy", "sampled", "as many as there are"],
)
def test_defaults_are_those_of_the_generation_config(
    model_directory: Directories,
    tmp_path: Path,
    config: dict[str, object],
    defaults: tuple[float | None, float | None, int | None],
) -> None:
    directory = copy_of(model_directory("qwen3"), tmp_path / "model")
    (directory / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    given = load(directory).defaults
    assert (given.temperature, given.top_p, given.top_k) == defaults


@pytest.mark.parametrize("attention", ["auto", "torch"])
def test_what_another_sequence_left_in_the_cache_cannot_come_in(model_directory: Directories, attention: str) -> None:
    model = load(model_directory("llama"), attention=attention)
    runner = model.runner
    assert isinstance(runner, TorchRunner)
    short, long = (Sequence(work(name, tuple(range(1, count)), 1)) for name, count in (("s", 4), ("l", 40)))
    short.blocks, long.blocks = [0], [5, 4, 3, 2, 1]
    parts = [Row(each, tuple(each.ids[:-1]), 0, each.blocks, len(each.ids) - 1) for each in (short, long)]
    last = [Row(each, (each.ids[-1],), len(each.ids) - 1, each.blocks, 0) for each in (short, long)]
    runner.forward(Batch(tuple(parts)))
    before = runner.forward(Batch((last[0],))).numbers
    for tensors in (runner._cache._keys, runner._cache._values):
        for layer in tensors.values():
            layer[1:] = torch.nan  # all that `short` does not hold
            layer[0, :, 3:] = torch.nan  # and what it has not written yet
    after = runner.forward(Batch((last[0], last[1]))).numbers
    assert torch.equal(before[0].argmax(), after[0].argmax())
    assert after[0].isfinite().all()
    assert after[1].isnan().all()
