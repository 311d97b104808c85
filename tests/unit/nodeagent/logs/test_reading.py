"""What engines write is read in order, from where it is wanted, through all their lives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nodeagent.bundle import Bundle, Bundles, Record
from nodeagent.logs import files
from nodeagent.logs.reading import BATCH_BYTES, Reading, Stream, Written
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.times import to_timestamp

START_S = 1_000_000.0


class Folder:
    """The directory of a replica, with an engine that writes what a test says."""

    def __init__(self, root: Path) -> None:
        self._bundles = Bundles(root)
        self._bundles.open()
        self._life_count = 0
        self.begin()

    def begin(self) -> None:
        """Begins the next life."""
        spec = engine_spec_pb2.EngineBundle(
            engine_uuid=f"e-{self._life_count}", replica_uid="r-1", start_time=to_timestamp(START_S)
        )
        self.bundle: Bundle = self._bundles.begin(spec, b"k", Record())
        self._life_count += 1

    def write(self, *lines: str, to: Stream = "stdout", end: str = "\n") -> None:
        with (self.bundle.stdout if to == "stdout" else self.bundle.stderr).open("a") as file:
            file.writelines(line + end for line in lines)

    def first(self, reading: Reading, *streams: Stream, goes_on: bool = False) -> list[str]:
        life = self.bundle.life(streams or ("stdout", "stderr"))
        assert life is not None
        return texts(reading.first(life, START_S, goes_on=goes_on))

    def more(self, reading: Reading) -> list[str]:
        return texts(reading.more(self.bundle.life(), self.bundle.previous_life()))


def texts(batches: Iterator[Sequence[Written]]) -> list[str]:
    return [each.line.text for batch in batches for each in batch]


def at(seconds: int, word: str) -> str:
    return f"1970-01-12T13:{46 + seconds // 60:02d}:{seconds % 60:02d}Z {word}"  # START_S is at 13:46:40


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "engines")


def test_two_streams_are_merged_by_time_and_a_line_without_one_stays_with_the_line_before(folder: Folder) -> None:
    folder.write(at(41, "a"), at(43, "d"), at(45, "f"))
    folder.write("before all", at(42, "b"), "  and c", at(44, "e"), to="stderr")
    words = [each.split()[-1] for each in folder.first(Reading())]
    assert words == ["all", "a", "b", "c", "d", "e", "f"]
    assert folder.first(Reading(), "stderr")[0] == "before all"


@pytest.mark.parametrize("count", [0, 1, 3, 7, 100])
def test_the_tail_of_two_streams_is_that_of_the_merged(folder: Folder, count: int) -> None:
    folder.write(*(at(41 + 2 * number, f"o{number}") for number in range(5)))
    folder.write(*(at(42 + 2 * number, f"e{number}") for number in range(3)), to="stderr")
    whole = folder.first(Reading())
    assert folder.first(Reading(tail_line_count=count)) == whole[max(0, 8 - count) :]


def test_what_is_older_is_left_out(folder: Folder) -> None:
    folder.write("undated", at(41, "old"), at(50, "new"), "and this", at(51, "newer"))
    since = [each.split()[-1] for each in folder.first(Reading(since_s=START_S + 5))]
    assert since == ["new", "this", "newer"]
    assert folder.first(Reading(since_s=START_S - 5))[0] == "undated"  # as old as the engine, and no older
    assert folder.first(Reading(since_s=START_S + 5, tail_line_count=1))[0].endswith("newer")


def test_what_is_written_later_comes_later_and_half_a_line_waits_for_its_end(folder: Folder) -> None:
    reading = Reading(tail_line_count=2)  # half a line counts as one
    folder.write("one", "two")
    folder.write("thr", end="")
    assert folder.first(reading, goes_on=True) == ["two"]
    assert folder.more(reading) == []
    folder.write("ee", "four")
    folder.write("aside", to="stderr")
    assert sorted(folder.more(reading)) == ["aside", "four", "three"]
    assert folder.more(reading) == []


def test_a_reader_goes_on_through_the_lives_of_an_engine_and_misses_no_last_words(folder: Folder) -> None:
    reading = Reading()
    folder.write("one")
    assert folder.first(reading, goes_on=True) == ["one"]
    folder.write("last words")
    folder.write("without an end", end="")
    folder.begin()
    folder.write("again")
    assert folder.more(reading) == ["last words", "without an end", "again"]
    folder.begin()
    assert folder.more(reading) == []


def test_a_reader_that_slept_through_a_life_goes_on_with_the_present_one(folder: Folder) -> None:
    reading = Reading()
    folder.write("one")
    assert folder.first(reading, goes_on=True) == ["one"]
    for word in ("missed", "missed too", "present"):
        folder.begin()
        folder.write(word)
    assert folder.more(reading) == ["present"]


def test_the_life_before_can_be_read(folder: Folder) -> None:
    assert folder.bundle.previous_life() is None
    folder.write("first life")
    folder.begin()
    folder.write("second life")
    before = folder.bundle.previous_life()
    assert before is not None
    assert texts(Reading().first(before, START_S, goes_on=False)) == ["first life"]
    folder.begin()
    folder.begin()  # of the third life no process ever ran
    before = folder.bundle.previous_life()
    assert before is not None
    assert texts(Reading().first(before, START_S, goes_on=False)) == ["second life"]


def test_a_reader_is_told_what_was_rotated_away(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOG_BYTES", 64 * 1024)
    reading = Reading()
    folder.write("one")
    assert folder.first(reading, goes_on=True) == ["one"]
    written = []
    for part in range(3):
        lines = [f"{part}-{number:07d}" for number in range(20_000)]
        folder.write(*lines)
        written += lines
        folder.bundle.trim_logs()
    batches = list(reading.more(folder.bundle.life(), None))
    first = batches[0][0].line
    assert first.skipped_bytes > 400_000
    assert all(each.line.skipped_bytes == 0 for batch in batches for each in batch[1:] if each.line is not first)
    assert texts(iter(batches))[-1] == written[-1]
    assert set(texts(iter(batches))[1:]) <= set(written)  # of the first, the beginning may be gone


def test_much_is_told_in_pieces(folder: Folder) -> None:
    folder.write(*("x" * 1000 for _ in range(1000)))
    life = folder.bundle.life()
    assert life is not None
    batches = list(Reading().first(life, START_S, goes_on=False))
    assert sum(map(len, batches)) == 1000
    assert all(len(each) * 1000 <= BATCH_BYTES + 1000 for each in batches)
