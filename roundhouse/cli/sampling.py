"""The flags of `roundhouse generate` and `chat` that say how tokens are chosen and how the request is treated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from roundhouse.cli.values import int32, seconds
from roundhouse.client.requests import POLICIES

Command = TypeVar("Command", bound=Callable[..., Any])


def _content(context: click.Context, parameter: click.Parameter, path: Path | None) -> str | None:
    """Reads a file."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise click.UsageError(f"{parameter.opts[-1]} {path} cannot be read: {reason}", context) from error


def _biases(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[int, float] | None:
    """Reads biases such as `50256=-100`."""
    biases = {}
    for each in values:
        token, _, bias = each.partition("=")
        try:
            biases[int(token)] = float(bias)
        except ValueError as error:
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write ID=BIAS', context) from error
    return biases or None


def _number(flag: str, metavar: str, help: str) -> Any:  # noqa: A002 - as click has it
    return click.option(flag, metavar=metavar, type=float, help=help)


def _count(flag: str, metavar: str, help: str) -> Any:  # noqa: A002 - as click has it
    return click.option(flag, metavar=metavar, type=int32, help=help)


_LENGTH = (
    _count("--max-tokens", "N", "The most output tokens; default the rest of the context."),
    _count("--min-tokens", "N", "No end before so many output tokens."),
    click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; repeatable."),
    click.option("--include-stop", is_flag=True, help="Show the text that stopped it too."),
    click.option("--ignore-eos", is_flag=True, help="Go on past the model's end."),
)
_CHOOSING = (
    _number("--temperature", "X", "0 is greedy; default the model's, else 1."),
    _number("--top-p", "P", "Keep the likeliest tokens up to this probability."),
    _count("--top-k", "K", "Keep this many of the likeliest tokens."),
    _number("--min-p", "P", "Keep tokens at least this share as likely as the likeliest."),
    _number("--typical-p", "P", "Keep the most typical tokens up to this probability."),
    _number("--repetition-penalty", "X", "Above 1, tokens of prompt and output become less likely."),
    _number("--presence-penalty", "X", "Above 0, tokens of the output become less likely."),
    _number("--frequency-penalty", "X", "The same for each time that they came."),
    click.option(
        "--logit-bias", multiple=True, metavar="ID=BIAS", callback=_biases, help="-100 forbids a token; repeatable."
    ),
    click.option("--bad-word", "bad_words", multiple=True, metavar="TEXT", help="Never write this; repeatable."),
    click.option("--seed", metavar="N", type=int, help="Makes sampling repeatable."),
    _count("--n", "N", "How many choices to generate; default 1."),
    _count("--best-of", "N", "Generate so many and show the best --n of them."),
)
_FORM = (
    click.option(
        "--json-schema", metavar="FILE", type=Path, callback=_content, help="Every output is JSON of this schema."
    ),
    click.option("--json-object", is_flag=True, help="Every output is a JSON object."),
    click.option("--regex", metavar="REGEX", help="Every output matches this from end to end."),
    click.option("--choice", multiple=True, metavar="TEXT", help="Every output is one of these; repeatable."),
    click.option("--ebnf", metavar="FILE", type=Path, callback=_content, help="Every output follows this grammar."),
)
_TELLING = (
    _count("--logprobs", "K", "With --json, tell of the K likeliest tokens at each place."),
    _count("--prompt-logprobs", "K", "With --json, the same of the prompt."),
)
_TREATMENT = (
    _count("--priority", "N", "Requests of a higher priority go first; default 0."),
    click.option("--request-id", metavar="ID", help="Name the request, to cancel it by; else drawn."),
    click.option(
        "--timeout", "timeout_s", metavar="SECONDS", type=seconds, help="Deadline of each answer; default none."
    ),
    click.option(
        "--failover", type=click.Choice(list(POLICIES), case_sensitive=False),
        help="Whether another replica may go on if the engine is lost: only one that gives the same to the token, "
        "which is the default, or any.",
    ),
    click.option(
        "--detach", "detach_s", metavar="SECONDS", type=seconds,
        help="How long a request goes on when the connection is gone, up to 3600; default 10. 0 ends it at once.",
    ),
    click.option("--session-key", metavar="KEY", help="Requests with the same key prefer the same replica."),
)  # fmt: skip


def generation_flags(command: Command) -> Command:
    """Gives a command the flags of `GenerationOptions`."""
    for decorate in reversed((*_LENGTH, *_CHOOSING, *_FORM, *_TELLING, *_TREATMENT)):
        command = decorate(command)
    return command


def generation_options(flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the flags of `generation_flags` give; a flag that was not given gives none."""
    return {name: value for name, value in flags.items() if value is not None and value is not False and value != ()}
