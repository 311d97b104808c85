"""Logs of engines stay within their bounds, and whoever reads them keeps his place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.logs import files
from nodeagent.logs.files import LogFile

BOUND = 64 * 1024


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LogFile:
    """A log with a bound that is filled soon."""
    monkeypatch.setattr(files, "LOG_BYTES", BOUND)
    return LogFile(tmp_path / "stdout.log")


def write(log: LogFile, content: bytes) -> None:
    with log.path.open("ab") as file:
        file.write(content)


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"%09d\n" % number for number in range(first, last))


def whole(log: LogFile, position: int = 0) -> bytes:
    found = b""
    while (piece := log.read(position)).content:
        found += piece.content
        position = piece.end
    return found


def test_a_log_that_is_not_there_is_empty(log: LogFile) -> None:
    assert (log.span(), log.tail(5), log.read(0).content) == ((0, 0), 0, b"")
    log.trim()


def test_what_is_cut_off_keeps_its_place(log: LogFile) -> None:
    write(log, numbered(0, 10_000))
    log.trim()
    write(log, numbered(10_000, 10_100))
    begin, end = log.span()
    assert end == 101_000
    assert 0 < end - 1_000 - begin < BOUND + 2 * 4096
    assert log.read(50_000, 10).content == numbered(5_000, 5_001)
    assert log.read(100_500, 10).content == numbered(10_050, 10_051)
    assert whole(log, 99_990) == numbered(9_999, 10_100)


def test_a_reader_learns_where_what_it_missed_ends(log: LogFile) -> None:
    for first in (0, 10_000, 20_000):
        write(log, numbered(first, first + 10_000))
        log.trim()
    piece = log.read(10)
    assert piece.position == log.span()[0] > 200_000
    assert piece.content[:1] == numbered(piece.position // 10, piece.position // 10 + 1)[piece.position % 10 :][:1]


def test_however_much_is_written_the_disk_holds_two_bounds(log: LogFile) -> None:
    for first in range(0, 100_000, 10_000):
        write(log, numbered(first, first + 10_000))
        log.trim()
    on_disk = sum(each.stat().st_blocks * 512 for each in log.path.parent.iterdir())
    assert on_disk <= 2 * (BOUND + 8192)
    assert log.span()[1] == 1_000_000


@pytest.mark.parametrize("end", [b"", b"no end"], ids=["whole", "with a line that has no end"])
@pytest.mark.parametrize("count", [0, 1, 2, 50, 6_000, 20_000])
def test_the_tail_is_the_last_lines(log: LogFile, count: int, end: bytes) -> None:
    write(log, numbered(0, 10_000))
    log.trim()
    write(log, numbered(10_000, 10_100) + end)
    begin, _ = log.span()
    lines = whole(log, begin).splitlines(keepends=True)
    wanted = b"".join(lines[len(lines) - count :]) if count < len(lines) else b"".join(lines)
    assert whole(log, log.tail(count)) == (wanted if count else b"")


def test_the_tail_of_long_lines_is_found(log: LogFile) -> None:
    write(log, b"a\n" + b"x" * 300_000 + b"\n" + b"b\n")
    assert whole(log, log.tail(3)).startswith(b"a\nxxx")
    assert whole(log, log.tail(2)).startswith(b"xxx")
    assert whole(log, log.tail(1)) == b"b\n"


def test_a_log_moves_with_all_that_it_has(log: LogFile) -> None:
    before = LogFile(log.path.with_name("previous.stdout.log"))
    write(before, numbered(0, 10_000))
    before.trim()
    write(log, b"short\n")
    log.move_to(before)
    assert (before.span(), whole(before)) == ((0, 6), b"short\n")
    assert [each.name for each in log.path.parent.iterdir()] == ["previous.stdout.log"]
