"""What `up` tells while it goes along: lines for people, or one JSON object per event."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Self

from rich.console import RenderableType
from rich.text import Text

from roundhouse.cli.answers import printable
from roundhouse.cli.output import console

MARGIN = 8  # columns for a name before what it says
_INDENT = " " * 2
_TITLE_COLUMNS = 15


class Story:
    """Tells events in order, to people or to programs."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = console()
        self._start_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Returns seconds since the story began."""
        return time.monotonic() - self._start_s

    def tell(self, event: str, shown: RenderableType | None = None, **facts: object) -> None:
        """Tells one event: `shown` to people, its name and facts to programs."""
        if self.as_json:
            print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)
        elif shown is not None:
            self._out.print(shown)

    def step(self, event: str, title: str, what: str, note: str = "", **facts: object) -> None:
        """Tells a step that was reached: what it is, what came of it, and how long it took since the beginning."""
        elapsed_s = self.elapsed_s()
        line = Text.assemble(
            _INDENT, title.ljust(_TITLE_COLUMNS), what.ljust(24), (f"{elapsed_s:6.1f} s", "dim"), (f"   {note}", "dim")
        )
        line.rstrip()
        self.tell(event, line, elapsed_s=round(elapsed_s, 3), **facts)

    def warn(self, what: str) -> None:
        """Tells that something went wrong and was coped with."""
        self.tell("warning", Text(f"{_INDENT}{what}", style="yellow"), message=what)

    def speech(self, who: str) -> Speech:
        """Returns what writes the words of somebody as they come, to people only."""
        return Speech(who, self._out.width if self._out.is_terminal else None, is_silent=self.as_json)


class Speech:
    """Words beside a name, written as they come and broken between words where a line of `columns` ends."""

    def __init__(self, who: str, columns: int | None, *, is_silent: bool) -> None:
        self._columns = columns
        self._is_silent = is_silent
        self._column = 0
        self._word = ""
        self._put(who.ljust(MARGIN))

    def write(self, text: str) -> Self:
        """Writes a piece; the last word of it is held back until it is whole."""
        *whole, self._word = re.split(r"(?<=\s)", self._word + text)
        for word in whole:
            self._put_word(word)
        return self

    def end(self) -> None:
        """Writes what was held back, and ends the line."""
        self._put_word(self._word)
        self._put("\n")

    def _put_word(self, word: str) -> None:
        if self._columns is not None and self._column + len(word.rstrip()) > self._columns:
            self._break()
        self._put(printable(word.rstrip("\n")))
        if word.endswith("\n"):
            self._break()

    def _break(self) -> None:
        self._column = 0
        self._put("\n" + " " * MARGIN)

    def _put(self, text: str) -> None:
        self._column += len(text.lstrip("\n"))
        if not self._is_silent:
            sys.stdout.write(text)
            sys.stdout.flush()
