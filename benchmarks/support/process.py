"""Runs a peer in a process of its own, which stands still while it is not its turn."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.support.wire import Hello, Outcome, Request, Setup, requests_to_json

START_S = 180.0  # compiling a model takes a minute or two
RUN_S = 300.0
STOP_S = 10.0


class PeerFailed(Exception):
    """The process ended, or said nothing for too long."""


class PeerProcess:
    """A peer, from its start to its end. Leaving the block ends all its processes."""

    def __init__(self, python: Path, module: str, root: Path, log: Path, variables: Mapping[str, str]) -> None:
        self._log = log
        self._unread = b""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                cwd=root,
                env={**os.environ, **variables},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resume()
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _pipe(self._process.stdout).close()

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._process.pid

    def load(self, setup: Setup) -> Hello:
        """Has it load a model, and then stand still. Raises PeerFailed."""
        answer = self._ask(asdict(setup), START_S)
        self._pause()
        return Hello(**answer)

    def run(self, requests: Sequence[Request]) -> Outcome:
        """Has it serve requests, and then stand still. Raises PeerFailed."""
        self._resume()
        answer = self._ask(requests_to_json(requests), RUN_S)
        self._pause()
        return Outcome(**answer)

    def _ask(self, question: object, timeout_s: float) -> dict[str, Any]:
        try:
            _pipe(self._process.stdin).write(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise PeerFailed(self._last_words()) from error
        answer: dict[str, Any] = json.loads(self._line(timeout_s))
        return answer

    def _line(self, timeout_s: float) -> bytes:
        output = _pipe(self._process.stdout)
        while b"\n" not in self._unread:
            if not select.select([output], [], [], timeout_s)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)  # what it says later would answer the wrong question
                raise PeerFailed(f"no answer within {timeout_s:.0f} s")
            read = os.read(output.fileno(), 1 << 20)
            if not read:
                raise PeerFailed(self._last_words())
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"it has ended: {lines[-1][:300] if lines else 'and said nothing'} ({self._log.name})"

    def _pause(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _resume(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
