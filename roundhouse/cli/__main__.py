"""`roundhouse`: where the process begins. Imports next to nothing before Ctrl-C and gRPC's core are seen to."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence

_INTERRUPTED = 130  # as in `exits`, which imports too much for the first moment


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Prints no traceback."""
    # What gRPC's core has to say about a connection reaches the user as an error of ours; it reads this when it loads.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with _ended_by_ctrl_c():
            from roundhouse.cli.program import run
        return run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Lets Ctrl-C end the process at once: an exception would come out of the middle of an import, or be lost there."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # somebody wants it ignored
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    yield
    signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
