"""Where output goes, and how it looks on a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO, cast

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.text import Text

_PIPE_COLUMNS = 1000  # nobody's terminal ends there, so no line is cut or folded

STATE_STYLES = {
    "ready": "green",
    "ok": "green",
    "cancelled": "green",
    "degraded": "yellow",
    "pending": "yellow",
    "preparing": "cyan",
    "starting": "cyan",
    "draining": "yellow",
    "deleting": "yellow",
    "stopped": "dim",
    "unknown": "yellow",
    "failed": "red",
    "lost": "red",
    "running": "green",
    "waiting": "yellow",
    "ended": "dim",
    "never came": "yellow",
}


def console(stream: TextIO | None = None) -> Console:
    """Returns a console that takes what it prints literally: names and messages are not markup."""
    out = sys.stdout if stream is None else stream
    if out.isatty():
        return Console(file=out, markup=False, emoji=False, highlight=False)
    trimming = cast("TextIO", _Trimming(out))
    return Console(file=trimming, markup=False, emoji=False, highlight=False, width=_PIPE_COLUMNS)


class _Trimming:
    """A stream without the spaces with which tables fill their lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes whole lines, as a console does."""
        return self._stream.write("\n".join(line.rstrip() for line in text.split("\n")))

    def flush(self) -> None:
        """Flushes what was written."""
        self._stream.flush()


def to_dict(message: Message) -> dict[str, Any]:
    """Returns a message as protobuf JSON with the names of the contract; fields at their default are there too."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def print_json(message: Message) -> None:
    """Prints a message as one document."""
    print(json.dumps(to_dict(message), indent=2, ensure_ascii=False), flush=True)


def print_json_line(message: Message) -> None:
    """Prints a message as one line of a stream."""
    print(json.dumps(to_dict(message), ensure_ascii=False), flush=True)


def state_text(state: str) -> Text:
    """Returns a state in lower case and its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def short_enum(name: str) -> str:
    """Returns `ready` for `REPLICA_STATE_READY`, `already finished` for `CANCEL_OUTCOME_ALREADY_FINISHED`."""
    for prefix in (
        "REPLICA_STATE_",
        "DEPLOYMENT_STATE_",
        "NODE_STATE_",
        "GPU_STATE_",
        "CANCEL_OUTCOME_",
        "CANCEL_LEVEL_",
        "CANCEL_CAUSE_",
        "REQUEST_STATE_",
        "FINISH_REASON_",
        "EXACTNESS_",
    ):
        name = name.removeprefix(prefix)
    return name.lower().replace("_", " ")
