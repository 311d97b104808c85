"""Logs: one event per line, a constant message, the rest as keys. Never prompts or outputs of users."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Literal, TextIO, cast

import structlog

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")


def configure(
    level: Level = "info", *, style: Literal["console", "json"] | None = None, stream: TextIO | None = None
) -> None:
    """Sets up logging of this process; call it once, before any channel exists.

    `style` is `console` on a terminal and `json` elsewhere, unless given.
    """
    out = stream or sys.stderr
    console = style == "console" or (style is None and out.isatty())
    plain = structlog.dev.plain_traceback  # the rich one prints local variables, and those hold prompts
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=plain) if console else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(out))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=out, format="%(asctime)s %(name)s %(message)s")


class _Lossy:
    """A stream that loses lines where they cannot be written, on a full disk say: no process is to end of its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes if that is possible."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes if that is possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()
