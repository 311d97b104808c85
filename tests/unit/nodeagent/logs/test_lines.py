"""Bytes of any kind become lines that can be shown, and their times are found."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.logs.lines import MAX_LINE_BYTES, Line, Splitter, time_of

WRITTEN: dict[str, tuple[list[bytes], list[str]]] = {
    "lines": ([b"one\ntwo\n"], ["one", "two"]),
    "pieces": ([b"o", b"ne\nt", b"wo\n"], ["one", "two"]),
    "no end": ([b"one\ntwo"], ["one", "two"]),
    "empty lines": ([b"\n\n"], ["", ""]),
    "nothing": ([b""], []),
    "other ends of lines": ([b"one\r\ntwo\r", b"\n"], ["one", "two"]),
    "a progress bar": ([b"10 %\r20 %\r", b"30 %\rdone\nnext\n"], ["done", "next"]),
    "a bar that is not done": ([b"10 %\r20 %\r"], ["20 %"]),
    "no UTF-8": ([b"caf\xe9 \xff\n"], ["caf\ufffd \ufffd"]),
    "a character in two pieces": ([b"caf\xc3", b"\xa9\n"], ["café"]),
}


@pytest.mark.parametrize(("pieces", "texts"), WRITTEN.values(), ids=WRITTEN)
def test_bytes_become_lines(pieces: list[bytes], texts: list[str]) -> None:
    splitter = Splitter()
    lines = [line for each in pieces for line in splitter.split(each)]
    assert [each.text for each in [*lines, *splitter.finish()]] == texts


def test_a_long_line_is_cut_with_a_mark_and_says_how_much_is_missing() -> None:
    splitter = Splitter()
    lines = [line for _ in range(100) for line in splitter.split(b"x" * 1000)]
    assert lines == []
    [line] = splitter.split(b"\n")
    assert (line.text, line.omitted_bytes) == ("x" * MAX_LINE_BYTES + "…", 100_000 - MAX_LINE_BYTES)
    assert list(splitter.split(b"next\n")) == [Line("next", None)]


def test_a_long_line_is_not_cut_within_a_character() -> None:
    [line] = Splitter().split(b"x" + "é".encode() * MAX_LINE_BYTES + b"\n")
    assert line.text == "x" + "é" * (MAX_LINE_BYTES // 2 - 1) + "…"


def test_what_is_missing_is_told_with_the_next_line() -> None:
    splitter = Splitter()
    assert list(splitter.split(b"begun")) == []
    splitter.skip(70)
    assert [(each.text, each.skipped_bytes) for each in splitter.split(b"end\nnext\n")] == [("end", 70), ("next", 0)]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_how_bytes_arrive_does_not_matter(content: bytes, cuts: list[int]) -> None:
    def lines(*bounds: int) -> list[Line]:
        splitter = Splitter()
        parts = [content[start:end] for start, end in zip([0, *bounds], [*bounds, len(content)], strict=True)]
        return [*(line for each in parts for line in splitter.split(each)), *splitter.finish()]

    assert lines(*sorted(cuts)) == lines()


NOON_S = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC).timestamp()
TIMES: dict[str, tuple[str, float | None]] = {
    "JSON": ('{"event": "x", "timestamp": "2026-11-26T12:00:00.250000Z"}', NOON_S + 0.25),
    "at the beginning": ("2026-11-26T12:00:00Z something", NOON_S),
    "in brackets": ("[2026-11-26 12:00:00.5+00:00] x", NOON_S + 0.5),
    "with a zone": ("2026-11-26 13:00:00+01:00 x", NOON_S),
    "a comma": ("2026-11-26 12:00:00,250+00:00 x", NOON_S + 0.25),
    "the zone of this machine": ("2026-11-26 12:00:00 x", datetime(2026, 11, 26, 12).timestamp()),  # noqa: DTZ001
    "nonsense": ("2026-13-99 99:99:99 x", None),
    "in the middle": ("it was 2026-11-26 12:00:00", None),
    "no time": ("Traceback (most recent call last):", None),
    "no text": ('{"timestamp": 5}', None),
}


@pytest.mark.parametrize(("text", "time_s"), TIMES.values(), ids=TIMES)
def test_a_line_says_when_it_was_written(text: str, time_s: float | None) -> None:
    assert time_of(text) == time_s
