"""Writes an answer to the terminal while it comes, and judges how it ended."""

from __future__ import annotations

import sys

from roundhouse.cli.output import console, print_json_line
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.client import Generation
from roundhouse.client.names import enum_name, replica_label
from roundhouse.kit.errors import RoundhouseError, Unreachable
from roundhouse.kit.times import from_duration
from roundhouse.v1 import errors_pb2, generation_pb2, receipt_pb2

# What a model writes is not to move the cursor or to colour the terminal.
_CONTROL = {code: None for code in [*range(32), 127, *range(128, 160)] if chr(code) not in "\n\t"}


class CutShort(RoundhouseError):
    """The answer ended because somebody else cancelled it."""


async def show_answer(generation: Generation, *, as_json: bool) -> str:
    """Writes an answer as it comes and returns its text, or that of its first choice.

    Of several choices the first is written as it comes, and the others whole when all have ended. On a terminal a line
    on tokens and time follows. The error stream says if another engine went on. Raises CutShort if somebody else
    cancelled it, Unreachable if it ends without an end.
    """
    texts: dict[int, list[str]] = {0: []}
    async with generation:
        async for event in generation.events():
            if as_json:
                print_json_line(event)
            if event.HasField("resumed"):
                _tell_resumed(event.resumed)
            if event.HasField("delta"):
                texts.setdefault(event.delta.choice, []).append(event.delta.text)
            if not as_json:
                _write_first(event)
    if not as_json:
        print(flush=True)
        for choice, pieces in sorted(texts.items())[1:]:
            console().print(f"choice {choice}:", style="dim")
            print(printable("".join(pieces)), flush=True)
        if sys.stdout.isatty():
            console().print(summary(generation), style="dim")
    _check(generation)
    return "".join(texts[0])


def _write_first(event: generation_pb2.GenerationEvent) -> None:
    text = event.prompt.text if event.HasField("prompt") else event.delta.text if event.delta.choice == 0 else ""
    if text:
        sys.stdout.write(printable(text))
        sys.stdout.flush()


def _tell_resumed(resumed: generation_pb2.Resumed) -> None:
    if sys.stdout.isatty():
        print(file=sys.stderr)  # the answer stands in the middle of a line
    exactness = enum_name(generation_pb2.Exactness, resumed.exactness).removeprefix("EXACTNESS_")
    tokens = count_of(sum(each.output_token_count for each in resumed.positions), "token")
    print(f"resumed on {resumed.replica} ({exactness}) after {tokens}", file=sys.stderr, flush=True)


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
    if any(each.reason == generation_pb2.FINISH_REASON_LENGTH for each in generation.finishes.values()):
        parts.append("ended by length")
    return ", ".join(parts)


def _check(generation: Generation) -> None:
    if not generation.finishes:
        raise Unreachable("the answer broke off: try again", reason=errors_pb2.ERROR_REASON_ENGINE_LOST)
    for finished in generation.finishes.values():
        if finished.reason == generation_pb2.FINISH_REASON_CANCELLED:
            cause = enum_name(receipt_pb2.CancelCause, finished.cancel_cause).removeprefix("CANCEL_CAUSE_").lower()
            tokens = count_of(finished.output_token_count, "token")
            raise CutShort(f"the request was cancelled after {tokens} (cause: {cause})")
