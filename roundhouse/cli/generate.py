"""`roundhouse generate`: streams the continuation of a prompt."""

from __future__ import annotations

from typing import Any

import click

from roundhouse.cli.answers import show_answer
from roundhouse.cli.sampling import generation_flags, generation_options
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.values import read_input


@click.command(short_help="Streams the continuation of a prompt.")
@click.argument("name")
@click.argument("prompt")
@click.option("--echo", is_flag=True, help="Show the prompt first, as the model's tokenizer reads it.")
@generation_flags
@json_option
@click.pass_obj
def generate(session: Session, /, name: str, prompt: str, as_json: bool, **flags: Any) -> None:
    """Streams how deployment NAME continues PROMPT; "-" reads the prompt from standard input. Ctrl-C cancels."""
    # Read before there is a loop: a running one takes Ctrl-C for itself, and does not come to act on it while we read.
    _generate(session, name, read_input() if prompt == "-" else prompt, flags, as_json=as_json)


@asynchronous
async def _generate(session: Session, name: str, prompt: str, flags: dict[str, Any], *, as_json: bool) -> None:
    async with session.client() as client:
        await show_answer(client.generate(name, prompt, **generation_options(flags)), as_json=as_json)
