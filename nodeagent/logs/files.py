"""The log of one stream of one life of an engine, bounded on disk, in which every byte keeps its place.

stdout.log      what was written last; the engine appends to it
stdout.log.1    what was cut off it: a file with a hole where what is gone was, so that its size says how much was cut

position    0 ........... begin ............ base ........... end
            (a hole)      [begin, base)      [base, end)
                          in stdout.log.1    in stdout.log
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

log = structlog.get_logger()

LOG_BYTES = 8 * 1024 * 1024  # of either file; with two streams and two lives, 64 MiB per replica
READ_BYTES = 64 * 1024
_ALIGNMENT = 4096  # holes of file systems are made of blocks
# Held while a log is cut and while one is read: between the copy and the cut, bytes stand in both files.
_CUTTING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a log, and where they stand. Empty: there are none behind that position."""

    position: int
    content: bytes

    @property
    def end(self) -> int:
        """Returns the position behind it."""
        return self.position + len(self.content)


class LogFile:
    """One stream of one life. It need not exist yet. Every method opens what it needs and closes it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._older = path.with_name(path.name + ".1")

    @property
    def is_there(self) -> bool:
        """Tells whether anything was ever written to."""
        return self.path.exists()

    def trim(self) -> None:
        """Cuts a log that has grown beyond LOG_BYTES, and keeps its end in the older file.

        What is written between the copy and the cut is lost. Where there is no room for the copy, all of it is: a log
        must not fill the disk. Raises OSError if it cannot be cut.
        """
        with _CUTTING, contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size > LOG_BYTES:
                self._copy_or_lose()
                os.truncate(self.path, 0)  # the engine goes on with the same open file, which appends

    def move_to(self, other: LogFile) -> None:
        """Moves into the place of another life's log, of which nothing is left then."""
        with _CUTTING:
            for mine, its in ((self._older, other._older), (self.path, other.path)):
                its.unlink(missing_ok=True)
                if mine.exists():
                    mine.replace(its)

    def span(self) -> tuple[int, int]:
        """Returns where what is kept begins, and where it ends."""
        with _CUTTING:
            base = _size(self._older)
            begin = base
            with contextlib.suppress(OSError), self._older.open("rb") as older:
                begin = os.lseek(older.fileno(), 0, os.SEEK_DATA)  # raises where all is a hole
            return begin, base + _size(self.path)

    def read(self, position: int, most: int = READ_BYTES) -> Piece:
        """Returns what stands at a position; what stands behind it, if that is gone."""
        with _CUTTING:
            base = _size(self._older)
            if position < base:
                with contextlib.suppress(OSError), self._older.open("rb") as older:
                    found = os.lseek(older.fileno(), position, os.SEEK_DATA)
                    return Piece(found, os.pread(older.fileno(), min(most, base - found), found))
                position = base
            with contextlib.suppress(FileNotFoundError), self.path.open("rb") as present:
                return Piece(position, os.pread(present.fileno(), most, position - base))
            return Piece(position, b"")

    def tail(self, line_count: int) -> int:
        """Returns the position at which the last lines begin; a last line without an end counts."""
        begin, end = self.span()
        if line_count == 0:
            return end
        missing = line_count
        position = end
        while position > begin:
            start = max(begin, position - READ_BYTES)
            piece = self.read(start, position - start)
            if piece.position != start or not piece.content:
                return start  # it was cut meanwhile: what is there begins behind it
            # The two files meet somewhere, and a piece never spans both.
            block = piece.content if piece.end == position else piece.content + self._rest(piece.end, position)
            at = len(block) - 1 if position == end and block.endswith(b"\n") else len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                missing -= 1
                if missing == 0:
                    return start + at + 1
            position = start
        return begin

    def _rest(self, start: int, end: int) -> bytes:
        return self.read(start, end - start).content

    def _copy_or_lose(self) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        base = _size(self._older)
        try:
            with self.path.open("rb") as source, fresh.open("wb") as copy:
                _copy_end(source, copy, base)
            fresh.replace(self._older)
        except OSError as error:
            log.warning(
                "the log of an engine is lost, since it cannot be copied", path=str(self.path), error=str(error)
            )
            with contextlib.suppress(OSError):
                fresh.unlink()  # half of it would only take room
            with contextlib.suppress(OSError), self._older.open("ab") as older:
                older.truncate(base + _size(self.path))  # a hole takes none


def _copy_end(source: BinaryIO, copy: BinaryIO, base: int) -> None:
    """Copies the last LOG_BYTES of a log to where they stand in the life, behind a hole."""
    skipped = max(0, os.fstat(source.fileno()).st_size - LOG_BYTES)
    skipped -= (base + skipped) % _ALIGNMENT
    source.seek(max(0, skipped))
    copy.seek(base + max(0, skipped))
    while block := source.read(READ_BYTES):
        copy.write(block)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
