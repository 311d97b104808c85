"""The command line as a process, against a scripted cluster in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

import pytest

from tests.support.scripted_process import scripted_process


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    status: int
    out: str
    err: str


class Started(subprocess.Popen[str]):
    """A command that runs. A test that fails meanwhile does not wait for it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


class Cli:
    """Runs `roundhouse` with an address in its environment."""

    def __init__(self, address: str) -> None:
        self.address = address

    def environ(self, **more: str) -> Mapping[str, str]:
        return {**os.environ, "ROUNDHOUSE_ADDRESS": self.address, "NO_COLOR": "1", **more}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "roundhouse.cli", *arguments]

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ(),
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, stdin: int = subprocess.PIPE) -> Started:
        """Starts a command that the test talks with while it runs."""
        pipe = subprocess.PIPE
        return Started(self.command(*arguments), stdin=stdin, stdout=pipe, stderr=pipe, text=True, env=self.environ())


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    with scripted_process() as address:
        yield Cli(address)
