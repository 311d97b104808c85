"""A scripted cluster in a process of its own, for clients that block or own the event loop."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def scripted_process() -> Iterator[str]:
    """Runs a scripted cluster for the block and yields its address."""
    command = [sys.executable, "-m", "tests.support.scripted_cluster"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
