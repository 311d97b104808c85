"""Flags that say how tokens are chosen become options of the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from roundhouse.cli.sampling import generation_flags, generation_options
from roundhouse.client import GenerationOptions


@click.command()
@generation_flags
def options(**flags: Any) -> dict[str, Any]:
    return generation_options(flags)


def options_of(*arguments: str) -> Any:
    return options.main(list(arguments), standalone_mode=False)


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ("", {}),
        ("--temperature 0 --max-tokens 0", {"temperature": 0.0, "max_tokens": 0}),
        (
            "--min-p 0.1 --typical-p 0.9 --repetition-penalty 1.1",
            {"min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.1},
        ),
        ("--presence-penalty -1 --frequency-penalty 1", {"presence_penalty": -1.0, "frequency_penalty": 1.0}),
        ("--logit-bias 7=-100 --logit-bias 8=0.5", {"logit_bias": {7: -100.0, 8: 0.5}}),
        ("--bad-word no --bad-word never", {"bad_words": ("no", "never")}),
        (
            "--n 2 --best-of 3 --logprobs 0 --prompt-logprobs 4",
            {"n": 2, "best_of": 3, "logprobs": 0, "prompt_logprobs": 4},
        ),
        ("--min-tokens 2 --include-stop --ignore-eos", {"min_tokens": 2, "include_stop": True, "ignore_eos": True}),
        ("--regex a+", {"regex": "a+"}),
        ("--choice a --choice b", {"choice": ("a", "b")}),
        ("--json-object", {"json_object": True}),
        ("--priority -5", {"priority": -5}),
    ],
)
def test_what_is_given_is_an_option_and_what_is_not_is_none(flags: str, given: dict[str, Any]) -> None:
    assert options_of(*flags.split()) == given


def test_a_schema_and_a_grammar_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "null"}')
    (tmp_path / "grammar.lark").write_text('start: "ä"', encoding="utf-8")
    assert options_of("--json-schema", str(tmp_path / "schema.json")) == {"json_schema": '{"type": "null"}'}
    assert options_of("--ebnf", str(tmp_path / "grammar.lark")) == {"ebnf": 'start: "ä"'}
    (tmp_path / "grammar.lark").write_bytes(b"\xff")
    with pytest.raises(click.UsageError, match="cannot be read: it is not UTF-8"):
        options_of("--ebnf", str(tmp_path / "grammar.lark"))


def test_every_option_of_the_client_has_a_flag_but_those_for_programs() -> None:
    flags = {parameter.name for parameter in options.params}
    assert set(GenerationOptions.__annotations__) - flags == {
        "stop_token_ids",
        "bad_token_runs",
        "resume",
        "labels",
        "max_duration_s",
    }
    assert flags <= set(GenerationOptions.__annotations__)
