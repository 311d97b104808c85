"""`roundhouse chat`: a conversation, or one answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from roundhouse.cli.answers import show_answer
from roundhouse.cli.exits import complain
from roundhouse.cli.output import console
from roundhouse.cli.sampling import generation_flags, generation_options
from roundhouse.cli.session import Session, json_option
from roundhouse.cli.values import input_lines
from roundhouse.client import Messages
from roundhouse.kit.errors import RoundhouseError

_PROMPT = "› "

Ask = Callable[[Messages], Coroutine[Any, Any, str]]


@click.command(short_help="Talks with a deployment.")
@click.argument("name")
@click.argument("message", required=False)
@click.option("--system", metavar="TEXT", help="What sets the frame for the conversation.")
@generation_flags
@json_option
@click.pass_obj
def chat(session: Session, /, name: str, message: str | None, system: str | None, as_json: bool, **flags: Any) -> None:
    """Talks with deployment NAME.

    With MESSAGE, streams one answer; Ctrl-C cancels it. Without, reads a message per line, from the terminal or a pipe,
    and remembers what was said; at a terminal Ctrl-C cancels an answer and the conversation goes on.
    """
    # One runner for the conversation: between two answers the loop stands still and the terminal is read plainly.
    with asyncio.Runner() as runner:
        client = runner.run(session.client().__aenter__())

        async def ask(turns: Messages) -> str:
            generation = client.chat(name, turns, **generation_options(flags))
            flags["request_id"] = None  # the id that the user chose names the first request; the next is another
            try:
                return await show_answer(generation, as_json=as_json)
            finally:
                await generation.left()  # until the next answer the loop stands still, and would not send the cancel

        try:
            talk = _Conversation(runner, ask, system)
            if message is not None:
                talk.answer(message)
            elif sys.stdin.isatty():
                _at_terminal(talk, as_json=as_json)
            else:
                for line in input_lines():
                    if line.strip():
                        talk.answer(line.rstrip("\n"))
        finally:
            runner.run(client.__aexit__(None, None, None))


class _Conversation:
    """What has been said so far. A turn that fails or is cancelled was never said."""

    def __init__(self, runner: asyncio.Runner, ask: Ask, system: str | None) -> None:
        self._runner = runner
        self._ask = ask
        self._turns = [("system", system)] if system else []

    def answer(self, message: str) -> None:
        """Asks, and shows the answer."""
        turns = [*self._turns, ("user", message)]
        self._turns = [*turns, ("assistant", self._runner.run(self._ask(turns)))]


def _at_terminal(talk: _Conversation, *, as_json: bool) -> None:
    import readline  # noqa: F401 - gives `input` editing and a history

    aside = console(sys.stderr)  # standard output gets answers and nothing else: it may be a file
    aside.print("Ctrl-C cancels an answer, Ctrl-D ends the conversation", style="dim")
    while True:
        try:
            message = _typed()
        except EOFError:
            aside.print()
            return
        except KeyboardInterrupt:
            aside.print()
            continue
        except UnicodeError:
            complain(click.UsageError("that line is not UTF-8: type it again"))
            continue
        if not message.strip():
            continue
        try:
            talk.answer(message)
        except KeyboardInterrupt:
            if not as_json:
                print()
            aside.print("cancelled", style="dim")
        except RoundhouseError as error:
            complain(error)


def _typed() -> str:
    """Returns the next line. Where standard output is a terminal too, the line can be edited beside its prompt."""
    if sys.stdout.isatty():
        return input(_PROMPT)
    print(_PROMPT, end="", file=sys.stderr, flush=True)  # given it, `input` would write it to standard output
    return input()
