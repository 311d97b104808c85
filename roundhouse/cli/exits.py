"""How a command ends: one line for what went wrong, and an exit status that says of which kind it was."""

from __future__ import annotations

import sys

import click

from roundhouse.client import EngineFailed, NotConnected
from roundhouse.kit.errors import RoundhouseError, Usage

DONE = 0  # what was asked happened
REFUSED = 1  # it was refused, or it failed
USAGE = 2  # it could not be understood, or cannot run here
UNREACHABLE = 3  # nobody answers
INTERRUPTED = 130  # Ctrl-C

_START_ONE = 'start one with "roundhouse up", or name another with --address'


def status_of(error: Exception) -> int:
    """Returns the exit status for an error."""
    if isinstance(error, click.ClickException | Usage):
        return USAGE
    return UNREACHABLE if isinstance(error, NotConnected) else REFUSED


def complain(error: Exception) -> None:
    """Says on the error stream what went wrong and what may help, in one line, and what an engine said last."""
    notes = getattr(error, "__notes__", ())  # what the command knows of it and the client did not
    print(f"roundhouse: {_one_line('; '.join((_sentence(error), *notes)))}", file=sys.stderr)
    if isinstance(error, EngineFailed):
        for line in error.replica.last_exit.stderr_lines:
            print(f"  {line}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "roundhouse"
        return f'{_lower(error.format_message())}: see "{command} --help"'
    if isinstance(error, click.ClickException):
        return _lower(error.format_message())
    if isinstance(error, NotConnected):
        is_there = "TLS handshake" in error.message  # somebody answered, so it is no use to start one
        return error.message if is_there else f"{error} {_START_ONE}"
    if isinstance(error, RoundhouseError):
        return error.message
    return f"internal error: {type(error).__name__}: {error}: set ROUNDHOUSE_DEBUG=1 to see where"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
