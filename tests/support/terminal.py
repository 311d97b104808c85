"""A terminal with a command in it."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

PATIENCE_S = 60.0


class Terminal:
    """Runs a command on a pseudo-terminal for the block, and reads what it shows; its standard output may be a file."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, columns: int = 100, out: IO[bytes] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave if out is None else out,
            stderr=slave,
            start_new_session=True,
            env={**environ, "TERM": "xterm", "COLUMNS": str(columns)},
        )
        os.close(slave)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def read_until(self, text: str, within_s: float = PATIENCE_S) -> str:
        """Returns what was shown up to and with `text`; fails if it does not come."""
        wanted = text.encode()
        while wanted not in self._unread:
            ready, _, _ = select.select([self._master], [], [], within_s)
            assert ready, f"{text!r} did not come, but {self._unread.decode(errors='replace')!r}"
            self._unread += os.read(self._master, 4096)
        shown, _, self._unread = self._unread.partition(wanted)
        return (shown + wanted).decode(errors="replace")

    def read_to_the_end(self, within_s: float = PATIENCE_S) -> str:
        """Returns all that is shown until the command ends."""
        while select.select([self._master], [], [], within_s)[0]:
            try:
                self._unread += os.read(self._master, 4096)
            except OSError:  # how Linux says that nobody holds the other side any longer
                break
        else:
            raise AssertionError(f"it did not end, but showed {self._unread.decode(errors='replace')!r}")
        shown, self._unread = self._unread, b""
        return shown.decode(errors="replace")

    def write(self, text: str) -> None:
        """Types."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Does what a terminal does at Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def interrupt_until(self, text: str) -> None:
        """Presses Ctrl-C as people do, again if nothing happens for a second, until `text` comes.

        For a prompt of readline: between showing it and waiting for a key, CPython notes a signal and does not act on
        it before the next key.
        """
        for _ in range(round(PATIENCE_S)):
            self.interrupt()
            with contextlib.suppress(AssertionError):
                self.read_until(text, within_s=1.0)
                return
        raise AssertionError(f"{text!r} did not come, however often Ctrl-C was pressed")

    def end(self, within_s: float = PATIENCE_S) -> int:
        """Returns the exit status, which has to come by itself."""
        return self.process.wait(timeout=within_s)
