"""Runs the commands of one build, keeps and tells what they say, and ends the present one when told to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodeagent.venvs.words import bare, shortened, why_not
from roundhouse.kit.urls import redacted

LOG_BYTES = 1024**2  # of a build log; what comes after is left out
_TOLD_LINES = 200  # of those in which an error is looked for
_KEPT_LINES = 100_000  # of one command; an environment of some thousand packages is named in a line for each
# They would lead uv, or the Python of the environment, to somewhere else.
_MISLEADING = (
    "PYTHONHOME", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "VIRTUAL_ENV",
)  # fmt: skip


class Unbuildable(Exception):
    """It cannot be built; the message says why, and what to do."""


class Log:
    """The log of a build, cut off where it becomes too long."""

    def __init__(self, path: Path) -> None:
        self.path, self._left = path, 0

    def begin(self) -> None:
        """Drops that of the build before."""
        self.path.unlink(missing_ok=True)
        self._left = LOG_BYTES

    def add(self, line: str) -> None:
        """Keeps a line, if there is room."""
        content = f"{line}\n".encode()
        self._left -= len(content)
        # A disk that is full is for uv to complain of.
        with contextlib.suppress(OSError):
            if self._left >= 0:
                with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
                    file.write(content)


class Commands:
    """Runs one command after the other, and ends the present one when told to."""

    def __init__(self, uv: str, log: Log) -> None:
        self._uv, self.log = uv, log
        self.done = threading.Event()
        self._guard = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._is_ending = False

    def uv(self, *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None) -> Sequence[str]:
        """Returns what uv says; raises Unbuildable if it fails."""
        status, lines = self.run([self._uv, *arguments], cwd=cwd, environ=environ)
        if status:
            raise Unbuildable(why_not(lines[-_TOLD_LINES:], f"see {self.log.path} on the node"))
        return lines

    def run(
        self, command: Sequence[str], *, cwd: Path, environ: Mapping[str, str] | None = None, tells: bool = True
    ) -> tuple[int, Sequence[str]]:
        """Returns the exit status and the lines, of very many the last.

        Each goes to the log and, if it `tells`, to the agent at once.
        """
        base = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        quiet = {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
        with self._guard:
            if self._is_ending:
                raise Unbuildable("it is not wanted any more")
            self._child = child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**base, **quiet, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,
            )
        assert child.stdout is not None
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        for line in child.stdout:
            lines.append(line.rstrip("\n"))
            self.log.add(redacted(lines[-1]))
            if tells and (shown := bare(line)):
                say({"line": shortened(shown)})
        status = child.wait()
        with self._guard:
            self._child = None
        return status, list(lines)

    def end(self) -> None:
        """Ends the present command, with all that it started, and lets no other begin."""
        with self._guard:
            self._is_ending = True
            if self._child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)


def say(answer: Mapping[str, Any]) -> None:
    """Tells the agent something, in a line of JSON."""
    with contextlib.suppress(OSError):  # the agent is gone, and what is half made is removed all the same
        print(json.dumps(answer), flush=True)  # noqa: T201 - the agent reads it
