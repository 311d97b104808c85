import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines.demo_model import MODEL_DIR
from engines.demo_model.corpus import arithmetic
from engines.demo_model.corpus.turns import Conversation
from engines.demo_model.evaluate import Examiner
from engines.demo_model.exam import Question
from engines.demo_model.model_directory import new_model, write_model_directory

_MIB = 2**20

# Any, because the types that transformers declares for these do not fit how they are meant to be called.
_load_tokenizer: Any = AutoTokenizer.from_pretrained
_load_model: Any = AutoModelForCausalLM.from_pretrained


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    return Examiner(MODEL_DIR)


@pytest.mark.parametrize("is_thinking", [False, True], ids=["direct", "thinking"])
def test_at_least_18_of_20_held_out_sums_are_right_and_every_answer_ends(examiner: Examiner, is_thinking: bool) -> None:
    random = Random(77)
    turns = [arithmetic.addition(random, held_out=True) for _ in range(20)]
    questions = [Question("addition", Conversation("addition", (turn,), is_thinking)) for turn in turns]

    answers = examiner.answers(questions)

    right = [question.accepts(answer) for question, (answer, _) in zip(questions, answers, strict=True)]
    assert sum(right) >= 18, [answer for answer, _ in answers]
    assert all(has_ended for _, has_ended in answers)


def test_it_thinks_aloud_only_when_asked_to() -> None:
    tokenizer = _load_tokenizer(MODEL_DIR)
    model = _load_model(MODEL_DIR, dtype=torch.float32)
    texts = {}
    for enable_thinking in (False, True):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is 47 + 35?"}],
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
            return_tensors="pt",
        )
        output = model.generate(**prompt, max_new_tokens=64)
        texts[enable_thinking] = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)

    assert texts[False] == "47 + 35 = 82."
    assert texts[True].startswith("<think>\n")
    assert texts[True].endswith("</think>\n\n47 + 35 = 82.")


def test_the_shipped_files_are_complete_small_and_readable() -> None:
    names = {path.name for path in MODEL_DIR.iterdir()}

    assert names >= {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "loss.csv",
        "loss.svg",
        "model.safetensors",
        "scores.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) <= 12 * _MIB


def test_the_card_says_what_was_scored() -> None:
    card = (MODEL_DIR / "README.md").read_text()
    scores = json.loads((MODEL_DIR / "scores.json").read_text())

    for topic, right in scores["right"].items():
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {topic} |")]
        assert row.endswith(f"| {right['direct']:.0%} | {right['thinking']:.0%} |".replace("%", " %"))
    for length, right in scores["right_by_prompt_tokens"].items():
        assert f"| {length} | {right['sum']:.0%} | {right['name']:.0%} |".replace("%", " %") in card


def test_weights_are_bfloat16_and_finite() -> None:
    with safe_open(MODEL_DIR / "model.safetensors", framework="pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118 - not a mapping

    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_the_configuration_says_the_context_and_where_an_answer_ends() -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text())
    generation = json.loads((MODEL_DIR / "generation_config.json").read_text())
    tokenizer = _load_tokenizer(MODEL_DIR)

    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["max_position_embeddings"] == 2048
    assert generation["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_a_written_model_directory_loads_with_the_same_weights(tmp_path: Path) -> None:
    tokenizer = _load_tokenizer(MODEL_DIR).backend_tokenizer
    model = new_model(tokenizer)

    write_model_directory(tmp_path, model, tokenizer)
    loaded, report = _load_model(tmp_path, output_loading_info=True)

    assert not report["missing_keys"]
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight.to(torch.bfloat16))
    assert (tmp_path / "chat_template.jinja").read_text() == (MODEL_DIR / "chat_template.jinja").read_text()


def test_importing_the_package_imports_no_torch() -> None:
    code = "import engines.demo_model, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
