"""The flags of `roundhouse launch` that say what is wanted, spelt as in Xinference where it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from roundhouse.cli.values import int32, seconds
from roundhouse.client import deployment
from roundhouse.kit.config import parse_bytes
from roundhouse.kit.errors import Usage
from roundhouse.options.engine_options import METHODS, WORDS
from roundhouse.v1 import deployment_pb2

Command = TypeVar("Command", bound=Callable[..., Any])


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Reads a size such as `5GiB`."""
    try:
        return None if value is None else parse_bytes(value, parameter.opts[-1])
    except Usage as error:
        raise click.UsageError(error.message, context) from error


def _labels(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Reads labels such as `team=search`."""
    labels = {}
    for each in values:
        key, equals, text = each.partition("=")
        if not (key and equals):
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write KEY=VALUE', context)
        labels[key] = text
    return labels


def _word(*names: str, help: str) -> Any:  # noqa: A002 - as click has it
    words = WORDS[names[-1].removeprefix("--")]
    return click.option(*names, type=click.Choice(words, case_sensitive=False), help=help)


_WHAT = (
    click.argument("name", required=False),
    click.option("-u", "--model-uid", metavar="NAME", help="The same as NAME."),
    click.option("-n", "--model-name", metavar="MODEL", help='Without a path, a model that ships with us: "demo".'),
    click.option("-mp", "--model-path", metavar="DIR", type=Path, help="A Hugging Face model directory on the nodes."),
    click.option(
        "-r", "--replica", "replica_count", metavar="N", type=int32, default=1, help="How many replicas; default 1."
    ),
    click.option(
        "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=_labels, help="A label; repeatable."
    ),
)
_WHERE = (
    click.option("--gpu-count", metavar="N", type=int32, help="How many distinct GPUs all replicas together use."),
    click.option(
        "--memory", "memory_bytes", metavar="SIZE", callback=_size, help="What a replica needs, as 5GiB; else computed."
    ),
    click.option("--strategy", default="", help="How GPUs are ranked; the cluster's choice if absent."),
)
_HOW = (
    click.option(
        "-en", "--model-engine", "engine", metavar="ENGINE", default="", help="The engine type; default torch."
    ),
    click.option(
        "-ev", "--env", nargs=2, multiple=True, metavar="NAME VALUE", help="A variable for engines; repeatable."
    ),
    click.option("--batch-size", metavar="N", type=int32, help="The most sequences in a step."),
    click.option(
        "--batch-interval", "batch_interval_s", metavar="SECONDS", type=seconds, help="How long an idle engine gathers."
    ),
    click.option(
        "--max-model-len", metavar="TOKENS", type=int32, help="The most tokens of prompt and output together."
    ),
    click.option("--max-num-batched-tokens", metavar="TOKENS", type=int32, help="The most tokens computed in a step."),
    click.option("--max-waiting", metavar="N", type=int32, help="The most sequences that wait in an engine."),
    click.option(
        "--kv-cache-memory", "kv_cache_memory_bytes", metavar="SIZE", callback=_size, help="Memory of the KV cache."
    ),
    click.option("--block-size", metavar="TOKENS", type=int32, help="Tokens in a block of the KV cache; default 16."),
    click.option(
        "--enable-prefix-caching/--no-enable-prefix-caching",
        default=None,
        help="Whether a prompt that begins like an earlier one is computed from there on; it is by default.",
    ),
    _word("--dtype", help="Number format of weights and cache; default auto."),
    _word("--attention", help="What computes attention; default auto."),
    click.option("--compile/--no-compile", default=None, help="Compile the model: takes minutes at the start."),
    _word("-q", "--quantization", help="Format of the weights of linear layers; default none, as they are."),
    click.option(
        "--speculation",
        type=click.Choice(list(METHODS), case_sensitive=False),
        help="How tokens are guessed ahead, which changes no output; default off.",
    ),
    click.option("--speculation-tokens", metavar="N", type=int32, help="How many are guessed at a time; default 4."),
    click.option("--draft-model", metavar="DIR", type=Path, help="The model that guesses, a directory on the nodes."),
)


def deployment_flags(command: Command) -> Command:
    """Gives a command all flags that `deployment_of` takes."""
    for decorate in reversed((*_WHAT, *_WHERE, *_HOW)):
        command = decorate(command)
    return command


def deployment_of(
    *,
    name: str | None,
    model_uid: str | None,
    model_name: str | None,
    model_path: Path | None,
    labels: dict[str, str],
    env: Sequence[tuple[str, str]],
    draft_model: Path | None,
    **settings: Any,
) -> deployment_pb2.Deployment:
    """Returns the deployment that the flags describe; raises click.UsageError if they name none, or no model."""
    names = {each for each in (name, model_uid) if each}
    if len(names) > 1:
        raise click.UsageError(f"two names, {name} and {model_uid}: give one")
    if model_path is None and model_name is None:
        raise click.UsageError("no model: give --model-path DIR, or --model-name demo")
    if not (names or model_name):
        raise click.UsageError("no name: give one, as in roundhouse launch NAME --model-path DIR")
    return deployment(
        names.pop() if names else str(model_name),
        path=None if model_path is None else str(model_path.absolute()),
        builtin=model_name if model_path is None else None,
        labels=labels,
        env=dict(env),
        draft_model=None if draft_model is None else str(draft_model.absolute()),
        **settings,
    )
