"""What the makers of a model recommend is taken as far as it means something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.text.generation_config import GenerationConfig, end_ids, read_generation_config
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import errors_pb2

NAME = "generation_config.json"


def write(directory: Path, text: str, name: str = NAME) -> Path:
    (directory / name).write_text(text, encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({NAME: {"eos_token_id": [3, 5]}, "config.json": {"eos_token_id": 7}}, {3, 5}),
        ({NAME: {}, "config.json": {"eos_token_id": 7}}, {7}),
        ({"config.json": {"eos_token_id": 7}}, {7}),
        ({"config.json": {}}, set()),
        ({}, set()),
    ],
    ids=["generation config", "says nothing", "config", "nobody says", "no files"],
)
def test_the_ids_that_end_an_output(tmp_path: Path, files: dict[str, object], ids: set[int]) -> None:
    for name, content in files.items():
        write(tmp_path, json.dumps(content), name)
    assert end_ids(tmp_path) == ids


def test_without_the_file_nothing_is_recommended(tmp_path: Path) -> None:
    assert read_generation_config(tmp_path) == GenerationConfig(None, None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"temperature": 2, "top_p": 1, "top_k": 50}', (2.0, 1.0, 50)),
        ('{"temperature": null, "top_p": null, "top_k": null, "do_sample": null}', (None, None, None)),
        ('{"top_k": 0}', (None, None, 0)),
        ('{"top_k": -1}', (None, None, 0)),
        ('{"do_sample": false, "temperature": 0.6}', (0.0, None, None)),
        ('{"a field of tomorrow": []}', (None, None, None)),
    ],
    ids=["bounds", "null", "all", "all, by another convention", "greedy", "unknown"],
)
def test_what_means_something_is_taken(
    tmp_path: Path, text: str, said: tuple[float | None, float | None, int | None]
) -> None:
    config = read_generation_config(write(tmp_path, text))
    assert (config.temperature, config.top_p, config.top_k) == said


def test_filters_and_the_penalty_that_a_config_may_name_are_taken(tmp_path: Path) -> None:
    config = read_generation_config(write(tmp_path, '{"min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.05}'))
    assert (config.min_p, config.typical_p, config.repetition_penalty) == (0.1, 0.9, 1.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{not json", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "is no JSON object"),
        ('{"temperature": "hot"}', 'temperature is "hot": make it a number in [0, 2], or leave it out'),
        ('{"temperature": -1}', "temperature is -1"),
        ('{"temperature": 2.5, "do_sample": false}', "temperature is 2.5"),
        ('{"temperature": true}', "temperature is true"),
        ('{"temperature": NaN}', "temperature is NaN"),
        ('{"top_p": 0}', "top_p is 0: make it a number in (0, 1], or leave it out"),
        ('{"top_p": 1.5}', "top_p is 1.5"),
        ('{"top_p": [0.5]}', "top_p is [0.5]"),
        ('{"top_k": 2.5}', "top_k is 2.5: make it a whole number, or leave it out"),
        ('{"top_k": "all"}', 'top_k is "all"'),
        ('{"min_p": 1.5}', "min_p is 1.5: make it a number in [0, 1], or leave it out"),
        ('{"typical_p": 0}', "typical_p is 0: make it a number in (0, 1], or leave it out"),
        ('{"repetition_penalty": 0}', "repetition_penalty is 0: make it a number in (0, 2], or leave it out"),
        ('{"do_sample": "no"}', 'do_sample is "no"'),
        ('{"eos_token_id": "x"}', 'eos_token_id is "x": make it an id or a list of ids, or leave it out'),
        ('{"eos_token_id": [3, "x"]}', 'eos_token_id is [3, "x"]'),
        ('{"eos_token_id": true}', "eos_token_id is true"),
    ],
)
def test_what_means_nothing_is_refused_with_file_field_and_value(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_generation_config(write(tmp_path, text))
    assert refused.value.own_reason == errors_pb2.ERROR_REASON_MODEL_BROKEN
    assert f'{NAME} in "{tmp_path}"' in refused.value.message
    assert said in refused.value.message


def test_a_config_with_a_bad_end_is_refused_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, '{"eos_token_id": {}}', "config.json")
    with pytest.raises(InvalidArgument, match=r'^config\.json in ".*" says that eos_token_id is \{\}'):
        end_ids(tmp_path)
