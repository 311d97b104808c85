"""Makes lines of what an engine wrote, and finds out when. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

MAX_LINE_BYTES = 8 * 1024
CUT = "…"
_BEGIN = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?\d*(?:Z|[+-]\d\d:?\d\d)?)")
_MEMBER = re.compile(r'"timestamp":\s*"([^"]{1,40})"')


@dataclass(frozen=True, slots=True)
class Line:
    """A line, without its end. time_s: since 1970, as the line says itself."""

    text: str
    time_s: float | None
    omitted_bytes: int = 0  # that were cut off
    skipped_bytes: int = 0  # that are missing before it


class Splitter:
    """Takes bytes as they come and gives whole lines; holds less than MAX_LINE_BYTES of one that has not ended."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._omitted = self._skipped = 0
        self._has_begun = False

    def skip(self, count: int) -> None:
        """Notes that bytes are missing here. What was held of a line is lost with its end."""
        self._held.clear()
        self._skipped += count + self._omitted
        self._omitted, self._has_begun = 0, False

    def split(self, content: bytes) -> Iterator[Line]:
        """Yields the lines that end in these bytes."""
        *ended, rest = content.split(b"\n")
        for each in ended:
            self._take(each)
            yield self._line()
        if rest:
            self._take(rest)

    def finish(self) -> Iterator[Line]:
        """Yields the last line, if it has no end."""
        if self._has_begun:
            yield self._line()

    def _take(self, part: bytes) -> None:
        # On a terminal, what follows a carriage return stands in the place of what was there.
        if self._held.endswith(b"\r") and part not in (b"", b"\r"):
            self._held.clear()
            self._omitted = 0
        _, was_overwritten, last = part.removesuffix(b"\r").rpartition(b"\r")
        if was_overwritten:
            self._held.clear()
            self._omitted = 0
            part = last + part[len(part.removesuffix(b"\r")) :]
        room = MAX_LINE_BYTES - len(self._held)
        self._held += part[:room]
        self._omitted += max(0, len(part) - room)
        self._has_begun = True

    def _line(self) -> Line:
        text = self._held.removesuffix(b"\r").decode(errors="replace")
        if self._omitted:
            text = text.rstrip("\ufffd") + CUT  # a character that was cut in two is no news
        line = Line(text, time_of(text), self._omitted, self._skipped)
        self._held.clear()
        self._omitted = self._skipped = 0
        self._has_begun = False
        return line


def time_of(text: str) -> float | None:
    """Returns when a line was written, as it says itself, in seconds since 1970; None if it does not."""
    found = _MEMBER.search(text) if text.startswith("{") else _BEGIN.match(text)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found[1]).timestamp()  # without a zone, that of this machine
    except (ValueError, OverflowError):
        return None
