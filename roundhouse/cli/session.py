"""What every command has at hand: where to call, and an event loop for the time of the call."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import click

from roundhouse.client import Client

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Session:
    """Where the control plane is."""

    address: str
    ca: Path | None

    def client(self) -> Client:
        """Returns a client to be entered."""
        return Client(self.address, ca=self.ca)


def asynchronous(command: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, int | None]:
    """Makes a coroutine function a command. Ctrl-C cancels it, so that every block it is in is left properly."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int | None:
        return asyncio.run(command(*args, **kwargs))

    return run


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: one document, or one object per line.")
