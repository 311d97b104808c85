import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.backends.torch_lm.fingerprint import fingerprint, tokenizer_fingerprint
from tests.support.tiny_models import write_tiny_model

CPU = torch.device("cpu")


def test_the_same_files_have_the_same_fingerprint_wherever_they_are(
    model_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_directory("qwen3"), copy)
    (copy / "README.md").write_text("decides nothing", encoding="utf-8")
    given = fingerprint(model_directory("qwen3"), dtype="float32", device=CPU)
    assert given == fingerprint(copy, dtype="float32", device=CPU)
    assert len(given) == 64


@pytest.mark.parametrize(
    "change", ["weights", "tokenizer", "template", "dtype", "numerics", "quantization", "variables", "chat_template"]
)
def test_what_decides_the_output_changes_the_fingerprint(
    model_directory: Callable[[str], Path], tmp_path: Path, change: str
) -> None:
    directory, dtype, told = tmp_path / "copy", "float32", dict[str, object]()
    ways: dict[str, Any] = {"numerics": "fused", "quantization": ""}
    shutil.copytree(model_directory("qwen3"), directory)
    before = fingerprint(directory, dtype=dtype, device=CPU, **ways)
    match change:
        case "weights":
            write_tiny_model(directory, "qwen3", seed=1)
        case "tokenizer":
            path = directory / "tokenizer.json"
            path.write_text(
                json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"padding": None}), encoding="utf-8"
            )
        case "template":
            (directory / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
        case "dtype":
            dtype = "bfloat16"
        case "variables":
            told["enable_thinking"] = False
        case _:
            ways[change] = "another"
    assert fingerprint(directory, dtype=dtype, device=CPU, template_variables=told, **ways) != before


@pytest.mark.parametrize("package", ["tokenizers", "transformers"])
def test_so_does_another_version_of_what_reads_a_model(
    model_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    before = fingerprint(model_directory("qwen3"), dtype="float32", device=CPU)
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "another" if name == package else real(name))
    assert fingerprint(model_directory("qwen3"), dtype="float32", device=CPU) != before


@pytest.mark.parametrize("change", ["weights", "tokenizer", "template", "variables", "chat_template"])
def test_what_decides_how_text_is_read_changes_the_fingerprint_of_the_tokenizer(
    model_directory: Callable[[str], Path], tmp_path: Path, change: str
) -> None:
    directory, ways = tmp_path / "copy", dict[str, Any]()
    shutil.copytree(model_directory("qwen3"), directory)
    before = tokenizer_fingerprint(directory)
    match change:
        case "weights":
            write_tiny_model(directory, "qwen3", seed=1)
        case "tokenizer":
            path = directory / "tokenizer.json"
            path.write_text(
                json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"padding": None}), encoding="utf-8"
            )
        case "template":
            (directory / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
        case "variables":
            ways["template_variables"] = {"enable_thinking": False}
        case "chat_template":
            ways["chat_template"] = "another"
    assert (tokenizer_fingerprint(directory, **ways) == before) == (change == "weights")
