"""`roundhouse generate`: streams the continuation of a prompt."""

from __future__ import annotations

import sys
from typing import Any

import click

from roundhouse.cli.answers import generation_flags, show_answer
from roundhouse.cli.session import Session, asynchronous, json_option


@click.command(short_help="Streams the continuation of a prompt.")
@click.argument("name")
@click.argument("prompt")
@generation_flags
@json_option
@click.pass_obj
@asynchronous
async def generate(session: Session, /, name: str, prompt: str, as_json: bool, **flags: Any) -> None:
    """Streams how deployment NAME continues PROMPT; "-" reads the prompt from standard input. Ctrl-C cancels."""
    text = sys.stdin.read() if prompt == "-" else prompt
    async with session.client() as client:
        await show_answer(client.generate(name, text, **flags), as_json=as_json)
