"""The flags of `roundhouse launch` that say what is wanted, spelt as in Xinference where it has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from roundhouse.cli.arguments import ENGINE_ARGUMENT
from roundhouse.cli.environments import environment_flags, virtual_env_of
from roundhouse.cli.naming import Named
from roundhouse.cli.placing import placement_flags
from roundhouse.cli.values import int32, pairs, seconds, size
from roundhouse.client import deployment
from roundhouse.options.engine_options import METHODS, WORDS
from roundhouse.v1 import deployment_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

_AUTO = "auto"


def _tokens_or_auto(text: str) -> int | str:
    """Reads a number of tokens, or `auto` for as many as fit."""
    return text if text == _AUTO else int32(text)


def _size_or_auto(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """Reads a size, or `auto` for as much as fits."""
    return value if value == _AUTO else size(context, parameter, value)


def _settings(context: click.Context, parameter: click.Parameter, values: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Reads settings by name, each of which there is once."""
    settings = dict(values)
    if len(settings) < len(values):
        names = [name for name, _ in values]
        twice = next(name for name in names if names.count(name) > 1)
        raise click.UsageError(f"{parameter.opts[-1]} {twice} is there twice: give it once", context)
    return settings


def _secrets(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Reads secrets from files, or from variables of this process: what a command line holds, others can see."""
    found = {}
    for each in values:
        name, has_file, file = each.partition("=")
        try:
            value = Path(file).read_text().removesuffix("\n") if has_file else os.environ.get(name)
        except (OSError, UnicodeError) as error:
            raise click.UsageError(f"{parameter.opts[-1]} {name}: {file} cannot be read: {error}", context) from error
        if value is None:
            raise click.UsageError(f"{parameter.opts[-1]} {name}: there is no such variable here: set it", context)
        found[name] = value
    return found


def _word(*names: str, help: str, words: Sequence[str] = ()) -> Any:  # noqa: A002 - as click has it
    choice = click.Choice(words or WORDS[names[-1].removeprefix("--")], case_sensitive=False)
    return click.option(*names, type=choice, help=help)


_WHAT = (
    click.argument("name", required=False),
    click.option("-u", "--model-uid", metavar="NAME", help="What the deployment is called; else as its model."),
)
_MODEL = (
    click.option(
        "-n",
        "--model-name",
        metavar="MODEL",
        help="A model of the catalog, as qwen3, a repository, as Qwen/Qwen3-4B, or demo, which ships with us.",
    ),
    click.option("-mp", "--model-path", metavar="DIR", type=Path, help="A Hugging Face model directory on the nodes."),
    click.option("-s", "--size-in-billions", metavar="SIZE", help="Which size of a model of the catalog, as 4 or 0_6."),
    click.option("-f", "--model-format", metavar="FORMAT", help="Which format of its files; default pytorch."),
    click.option(
        "-q",
        "--quantization",
        metavar="WORD",
        help="How files of the catalog are quantized; of any other model as --engine-quantization.",
    ),
)
_MANY = (
    click.option(
        "-r", "--replica", "replica_count", metavar="N", type=int32, default=1, help="How many replicas; default 1."
    ),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", callback=pairs, help="A label; repeatable."),
)  # fmt: skip
_ROUTING = click.option(
    "--routing-policy", metavar="NAME",
    help="How a replica is picked for a request: power_of_two, least_loaded, round_robin; else the cluster's choice.",
)  # fmt: skip
_ENGINE = click.option(
    "-en", "--model-engine", "engine", metavar="ENGINE", default="", help="The engine type; default torch."
)
_HOW = (
    click.option(
        "-ev", "--env", nargs=2, multiple=True, metavar="NAME VALUE", help="A variable for engines; repeatable."
    ),
    click.option(
        "--secret-env", metavar="NAME[=FILE]", multiple=True, callback=_secrets,
        help="A variable that engines alone see, from a file, or from the variable of that name here; repeatable.",
    ),
    click.option("--batch-size", metavar="N", type=int32, help="The most sequences in a step."),
    click.option(
        "--batch-interval", "batch_interval_s", metavar="SECONDS", type=seconds, help="How long an idle engine gathers."
    ),
    click.option(
        "--max-model-len", metavar="TOKENS", type=_tokens_or_auto,
        help="The most tokens of prompt and output together; auto: what fits.",
    ),
    click.option("--max-num-batched-tokens", metavar="TOKENS", type=int32, help="The most tokens computed in a step."),
    click.option("--max-waiting", metavar="N", type=int32, help="The most sequences that wait in an engine."),
    click.option(
        "--kv-cache-memory", metavar="SIZE", callback=_size_or_auto, help="Memory of the KV cache; auto: what fits."
    ),
    click.option("--block-size", metavar="TOKENS", type=int32, help="Tokens in a block of the KV cache; default 16."),
    click.option(
        "--enable-prefix-caching/--no-enable-prefix-caching", default=None,
        help="Whether a prompt that begins like an earlier one is computed from there on; it is by default.",
    ),
    click.option(
        "--enable-thinking/--no-enable-thinking", default=None,
        help="What the chat template is told of thinking; else it decides.",
    ),
    _word("--dtype", help="Number format of weights and cache; default auto."),
    _word("--attention", help="What computes attention; default auto."),
    click.option("--compile/--no-compile", default=None, help="Compile the model: takes minutes at the start."),
    _word(
        "--engine-quantization", words=WORDS["quantization"],
        help="Format in which an engine keeps the weights of linear layers; default none, as they are.",
    ),
    click.option(
        "--speculation",
        type=click.Choice(list(METHODS), case_sensitive=False),
        help="How tokens are guessed ahead, which changes no output; default off.",
    ),
    click.option("--speculation-tokens", metavar="N", type=int32, help="How many are guessed at a time; default 4."),
    click.option("--draft-model", metavar="DIR", type=Path, help="The model that guesses, a directory on the nodes."),
    click.option(
        ENGINE_ARGUMENT, "arguments", metavar="NAME VALUE", nargs=2, multiple=True, callback=_settings,
        help="What only this type of engine knows, as is any --name VALUE that is not listed here.",
    ),
)  # fmt: skip


def deployment_flags(command: Command) -> Command:
    """Gives a command all flags that `deployment_of` takes, and `--worker-ip` and `--gpu-idx`."""
    for decorate in (
        environment_flags,
        *reversed(_HOW),
        _ENGINE,
        placement_flags,
        _ROUTING,
        *reversed((*_WHAT, *_MODEL, *_MANY)),
    ):
        command = decorate(command)
    return command


def changing_flags(command: Command) -> Command:
    """Gives a command the flags for what can be changed of a deployment that exists."""
    for decorate in (environment_flags, *reversed(_HOW), _ROUTING, *reversed(_MODEL)):
        command = decorate(command)
    return command


def deployment_of(
    *,
    name: str | None,
    model_uid: str | None,
    model_name: str | None,
    model_path: Path | None,
    size_in_billions: str | None,
    model_format: str | None,
    quantization: str | None,
    engine_quantization: str | None,
    engine: str,
    env: Sequence[tuple[str, str]],
    secret_env: Mapping[str, str],
    draft_model: Path | None,
    max_model_len: Any,
    kv_cache_memory: Any,
    has_virtual_env: bool | None,
    packages: Sequence[str],
    constraints: Sequence[str],
    index_url: str | None,
    find_links: Sequence[str],
    inherit: bool | None,
    **settings: Any,
) -> deployment_pb2.Deployment:
    """Returns the deployment that the flags describe; raises click.UsageError if they name none, or no model."""
    named = Named(name, model_uid, model_name, model_path, size_in_billions, model_format, quantization)
    return deployment(
        named.deployment(),
        **named.source(),
        engine=engine.lower(),
        env=dict(env),
        secret_env=secret_env,
        virtual_env=virtual_env_of(
            has_virtual_env=has_virtual_env,
            packages=packages,
            constraints=constraints,
            index_url=index_url,
            find_links=find_links,
            inherit=inherit,
        ),
        quantization=engine_quantization or named.engine_quantization(),
        **fitting_of(draft_model, max_model_len, kv_cache_memory),
        **settings,
    )


def fitting_of(draft_model: Path | None, max_model_len: Any, kv_cache_memory: Any) -> dict[str, Any]:
    """Returns the settings of flags whose values are not those of the contract."""
    return {
        "draft_model": None if draft_model is None else str(draft_model.absolute()),
        "max_model_len": None if max_model_len == _AUTO else max_model_len,
        "fit_max_model_len": max_model_len == _AUTO or None,
        "kv_cache_memory_bytes": None if kv_cache_memory == _AUTO else kv_cache_memory,
        "fit_kv_cache_memory": kv_cache_memory == _AUTO or None,
    }
