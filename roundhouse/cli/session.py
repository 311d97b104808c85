"""What every command has at hand: where to call, and an event loop for the time of the call."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec

import click

from roundhouse.client import Client
from roundhouse.kit.authorized import read_token
from roundhouse.kit.server import Listen

_SCHEMES = ("http", "https")

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Session:
    """Where the control plane is, and who calls."""

    address: str
    ca: Path | None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None  # holds the token, if none was given

    def client(self) -> Client:
        """Returns a client to be entered; raises Usage for a token that cannot be read, or that others could read."""
        token = self.token or (read_token(self.token_file) if self.token_file else None)
        return Client(self.address, ca=self.ca, token=token)

    def at(self, endpoint: str | None) -> Session:
        """Returns the session with a control plane at `HOST:PORT` or a URL; this one for None.

        Raises click.UsageError for another scheme, and for one that promises TLS where no authority was given.
        """
        if endpoint is None:
            return self
        scheme, separator, rest = endpoint.rpartition("://")
        if separator and scheme.lower() not in _SCHEMES:
            raise click.UsageError(f'--endpoint "{endpoint}" is no address: write HOST:PORT or http://HOST:PORT')
        if scheme.lower() == "https" and self.ca is None:
            raise click.UsageError(f"--endpoint {endpoint} asks for TLS: give --tls-ca FILE before the command")
        address = rest.rstrip("/")
        Listen.parse(address)  # raises Usage with an example of what it should look like
        return replace(self, address=address)


def asynchronous(command: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, int | None]:
    """Makes a coroutine function a command. Ctrl-C cancels it, so that every block it is in is left properly."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int | None:
        return asyncio.run(command(*args, **kwargs))

    return run


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: one document, or one object per line.")
