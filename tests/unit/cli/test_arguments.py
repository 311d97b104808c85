"""The words of a launch, before any flag is looked at: a bare endpoint, and what only an engine knows."""

from __future__ import annotations

import click
import pytest

from roundhouse.cli import program
from roundhouse.cli.arguments import to_known

FLAGS = {
    "-r": 1, "--replica": 1, "--env": 2, "--compile": 0, "--max-model-len": 1, "--gpu-count": 1, "-e": 1,
    "--endpoint": 1, "--size-in-billions": 1, "--engine-argument": 2,
}  # fmt: skip

READ = {
    "a bare endpoint": ("-e qwen3 -r 2", "qwen3 -r 2"),
    "a bare endpoint, last": ("qwen3 -e", "qwen3"),
    "a bare endpoint before a flag": ("--endpoint -r 2", "-r 2"),
    "a URL": ("-e http://10.0.0.1:9997 qwen3", "--endpoint=http://10.0.0.1:9997 qwen3"),
    "an address": ("--endpoint 10.0.0.1:9997", "--endpoint=10.0.0.1:9997"),
    "a host": ("-e localhost qwen3", "--endpoint=localhost qwen3"),
    "an address that is joined": ("--endpoint=somewhere", "--endpoint=somewhere"),
    "underscores": ("--max_model_len 64 --gpu_count=2", "--max-model-len 64 --gpu-count=2"),
    "values that look like flags": ("--env A --x -r -1", "--env A --x -r -1"),
    "a setting": ("--swap_space 4", "--engine-argument swap_space 4"),
    "a setting with hyphens": ("--swap-space=4", "--engine-argument swap_space 4"),
    "a negative number": ("--offset -4.5", "--engine-argument offset -4.5"),
    "a setting before a flag": ("--eager -r 2", "--engine-argument eager  -r 2"),
    "a setting before another": ("--eager --swap 4", "--engine-argument eager  --engine-argument swap 4"),
    "a switch, last": ("qwen3 --eager", "qwen3 --engine-argument eager "),
    "a flag of one letter": ("-x 1", "-x 1"),
    "a flag without its value": ("-r", "-r"),
    "the end of flags": ("-r 2 -- --eager", "-r 2 -- --eager"),
}


@pytest.mark.parametrize(("words", "known"), READ.values(), ids=READ)
def test_words_are_read(words: str, known: str) -> None:
    assert to_known(words.split(), FLAGS) == known.split(" ")


def test_an_endpoint_of_nothing_is_bare() -> None:
    assert to_known(["-e", "", "qwen3"], FLAGS) == ["qwen3"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("--replicas", "--replica"), ("--max_model_length", "--max-model-len"), ("--size", "--size-in-billions")],
)
def test_a_slip_is_not_asked_of_an_engine(word: str, meant: str) -> None:
    with pytest.raises(click.UsageError, match=f"did you mean {meant}"):
        to_known([word, "2"], FLAGS)


@pytest.mark.parametrize(
    "word",
    [
        "tensor-parallel-size", "pipeline-parallel-size", "max-num-seqs", "gpu-memory-utilization", "enforce-eager",
        "swap-space", "seed", "kv-cache-dtype", "limit-mm-per-prompt", "speculative-config", "rope-scaling",
        "tokenizer-mode", "load-format", "cpu-offload-gb", "enable-chunked-prefill", "reasoning-parser", "n-ctx",
        "reasoning-content", "tool-call-parser", "mem-fraction-static", "context-length", "tp-size",
        "attention-backend", "device-map",
    ],
)  # fmt: skip
def test_what_other_engines_know_is_no_slip(word: str) -> None:
    launch = program.cli.commands["launch"]
    flags = {spelling: 1 for each in launch.params for spelling in (*each.opts, *each.secondary_opts)}
    assert to_known([f"--{word}", "1"], flags) == ["--engine-argument", word.replace("-", "_"), "1"]
