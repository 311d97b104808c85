"""Writes an answer to the terminal while it comes, and judges how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from roundhouse.cli.output import console, print_json_line
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.cli.values import int32, seconds
from roundhouse.client import Generation
from roundhouse.client.names import enum_name, replica_label
from roundhouse.kit.errors import RoundhouseError, Unreachable
from roundhouse.kit.times import from_duration
from roundhouse.v1 import errors_pb2, generation_pb2, receipt_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

# What a model writes is not to move the cursor or to colour the terminal.
_CONTROL = {code: None for code in [*range(32), 127, *range(128, 160)] if chr(code) not in "\n\t"}

_FLAGS = (
    click.option(
        "--max-tokens", metavar="N", type=int32, help="The most output tokens; default the rest of the context."
    ),
    click.option("--temperature", metavar="X", type=float, help="0 is greedy; default the model's, else 1."),
    click.option("--top-p", metavar="P", type=float, help="Keep the likeliest tokens up to this probability."),
    click.option("--top-k", metavar="K", type=int32, help="Keep this many of the likeliest tokens."),
    click.option("--seed", metavar="N", type=int, help="Makes sampling repeatable."),
    click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; repeatable."),
    click.option("--ignore-eos", is_flag=True, help="Go on past the model's end."),
    click.option("--request-id", metavar="ID", help="Name the request, to cancel it by; else drawn."),
    click.option(
        "--timeout", "timeout_s", metavar="SECONDS", type=seconds, help="Deadline of each answer; default none."
    ),
)


class CutShort(RoundhouseError):
    """The answer ended because somebody else cancelled it."""


def generation_flags(command: Command) -> Command:
    """Gives a command the flags of `GenerationOptions`."""
    for decorate in reversed(_FLAGS):
        command = decorate(command)
    return command


async def show_answer(generation: Generation, *, as_json: bool) -> str:
    """Writes an answer as it comes and returns its text.

    On a terminal a line on tokens and time follows. Raises CutShort if somebody else cancelled it, Unreachable if it
    ends without an end.
    """
    texts: list[str] = []
    async with generation:
        async for event in generation.events():
            if as_json:
                print_json_line(event)
            if event.HasField("delta"):
                texts.append(event.delta.text)
                if not as_json:
                    sys.stdout.write(printable(event.delta.text))
                    sys.stdout.flush()
    if not as_json:
        print(flush=True)
        if sys.stdout.isatty():
            console().print(summary(generation), style="dim")
    _check(generation)
    return "".join(texts)


def printable(text: str) -> str:
    """Returns what may be written of a text: all of it to a file or a pipe, to a terminal no control characters."""
    return text.translate(_CONTROL) if sys.stdout.isatty() else text


def summary(generation: Generation) -> str:
    """Returns one line on what an answer was and what it took."""
    parts = []
    if generation.usage is not None:
        usage = generation.usage
        parts.append(
            f"{count_of(usage.output_token_count, 'token')} in {format_seconds(from_duration(usage.total_duration))}"
        )
        if usage.HasField("first_token_duration"):
            parts.append(f"the first after {format_seconds(from_duration(usage.first_token_duration))}")
    if generation.started is not None:
        parts.append(f"on {replica_label(generation.started.replica)}")
    if generation.finished is not None and generation.finished.reason == generation_pb2.FINISH_REASON_LENGTH:
        parts.append("ended by length")
    return ", ".join(parts)


def _check(generation: Generation) -> None:
    finished = generation.finished
    if finished is None:
        raise Unreachable("the answer broke off: try again", reason=errors_pb2.ERROR_REASON_ENGINE_LOST)
    if finished.reason == generation_pb2.FINISH_REASON_CANCELLED:
        cause = enum_name(receipt_pb2.CancelCause, finished.cancel_cause).removeprefix("CANCEL_CAUSE_").lower()
        raise CutShort(
            f"the request was cancelled after {count_of(finished.output_token_count, 'token')} (cause: {cause})"
        )
