"""Reads what an engine has written, and what it goes on writing, of one stream or of both. Blocks: for a thread."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, islice
from typing import Literal

from nodeagent.logs.files import LogFile
from nodeagent.logs.lines import Line, Splitter

Stream = Literal["stdout", "stderr"]

BATCH_BYTES = 64 * 1024
_BESIDE_BYTES = 40  # what a line takes on the wire beside its text


@dataclass(frozen=True, slots=True)
class Life:
    """The logs of one life of an engine, and what tells it from all other lives."""

    key: object
    logs: tuple[tuple[Stream, LogFile], ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A line, where it was written to, and when at the earliest: at its own time, or that of a line before."""

    earliest_s: float
    stream: Stream
    line: Line


class Reading:
    """What one reader wants of one replica. Each step of what it yields opens what it reads, and closes it again.

    tail_line_count: the newest lines to begin with; None: all. since_s: none that were written before, since 1970.
    """

    def __init__(self, *, tail_line_count: int | None = None, since_s: float | None = None) -> None:
        self._tail_line_count, self._since_s = tail_line_count, since_s
        self._life: Life | None = None
        self._taps: Sequence[_Tap] = ()

    def first(self, life: Life, start_s: float, *, goes_on: bool) -> Iterator[Sequence[Written]]:
        """Yields what there is of a life that began at `start_s`, some lines at a time.

        goes_on: a last line that has no end yet is left for `more`.
        """
        begins = [self._begin(log) for _, log in life.logs]
        ends = [log.span()[1] for _, log in life.logs]
        surplus = 0
        if self._tail_line_count is not None and len(life.logs) > 1:
            count = sum(1 for _ in self._told(_taps(life, begins, start_s), ends, goes_on=goes_on))
            surplus = max(0, count - self._tail_line_count)
        self._life, self._taps = life, _taps(life, begins, start_s)
        yield from _batches(islice(self._told(self._taps, ends, goes_on=goes_on), surplus, None))

    def more(self, life: Life | None, previous: Life | None) -> Iterator[Sequence[Written]]:
        """Yields what has been written since, given the present life and the one before; begins with none."""
        before = self._life
        if life is not None and (before is None or life.key != before.key):
            if before is not None and previous is not None and previous.key == before.key:
                logs = dict(previous.logs)
                for tap in self._taps:
                    tap.log = logs[tap.stream]  # they were moved there
                yield from self._news(goes_on=False)
            self._life, self._taps = life, _taps(life, [0] * len(life.logs), 0.0)
        yield from self._news(goes_on=True)

    def _news(self, *, goes_on: bool) -> Iterator[Sequence[Written]]:
        ends = [tap.log.span()[1] for tap in self._taps]
        told = [_told(tap, end, goes_on=goes_on) for tap, end in zip(self._taps, ends, strict=True)]
        yield from _batches(heapq.merge(*told, key=lambda each: each.earliest_s))

    def _begin(self, log: LogFile) -> int:
        return log.span()[0] if self._tail_line_count is None else log.tail(self._tail_line_count)

    def _told(self, taps: Sequence[_Tap], ends: Sequence[int], *, goes_on: bool) -> Iterator[Written]:
        since_s = self._since_s
        told = [_told(tap, end, goes_on=goes_on) for tap, end in zip(taps, ends, strict=True)]
        if since_s is not None:
            told = [dropwhile(lambda each: each.earliest_s < since_s, lines) for lines in told]
        return heapq.merge(*told, key=lambda each: each.earliest_s)


@dataclass(slots=True)
class _Tap:
    """One stream, as far as it has been read."""

    stream: Stream
    log: LogFile
    position: int
    latest_s: float  # the time of the last line
    splitter: Splitter = field(default_factory=Splitter)

    def read(self, until: int) -> Iterator[Line]:
        """Yields the lines that end before a position."""
        while self.position < until:
            piece = self.log.read(self.position)
            if piece.position > self.position:
                self.splitter.skip(piece.position - self.position)
            if not piece.content:
                return
            self.position = piece.end
            yield from self.splitter.split(piece.content)


def _taps(life: Life, begins: Sequence[int], start_s: float) -> Sequence[_Tap]:
    return [_Tap(stream, log, begin, start_s) for (stream, log), begin in zip(life.logs, begins, strict=True)]


def _told(tap: _Tap, until: int, *, goes_on: bool) -> Iterator[Written]:
    """Yields the lines of one stream with their times, which never go back."""
    for line in tap.read(until):
        yield _written(tap, line)
    if not goes_on:
        for line in tap.splitter.finish():
            yield _written(tap, line)


def _written(tap: _Tap, line: Line) -> Written:
    if line.time_s is not None:
        tap.latest_s = max(tap.latest_s, line.time_s)
    return Written(tap.latest_s, tap.stream, line)


def _batches(lines: Iterable[Written]) -> Iterator[Sequence[Written]]:
    batch: list[Written] = []
    size = 0
    for each in lines:
        batch.append(each)
        size += len(each.line.text.encode()) + _BESIDE_BYTES
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
