"""The small values of the kit: names, sizes, settings, times, delays, field checks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roundhouse.kit.backoff import Backoff
from roundhouse.kit.config import parse_bool, parse_bytes, setting
from roundhouse.kit.errors import InvalidArgument, Usage
from roundhouse.kit.fields import MAX_VIOLATIONS, FieldCheck
from roundhouse.kit.names import NamePattern, is_id
from roundhouse.kit.pace import Pace
from roundhouse.kit.times import from_duration, from_timestamp, to_duration, to_timestamp
from roundhouse.kit.units import format_bytes, format_sum

BOOK = NamePattern("shelves/{shelf}/books/{book}")
IDS = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(IDS, st.integers(0, 999))
def test_a_name_is_taken_apart_as_it_was_built(shelf: str, book: int) -> None:
    assert BOOK.parse(BOOK.format(shelf, book)) == (shelf, str(book))


@pytest.mark.parametrize("name", ["", "shelves", "shelves/a", "shelves//books/b", "shelves/a/books/b/c", "x/a/books/b"])
def test_a_name_of_another_shape_is_refused_with_the_form(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"use the form shelves/\{shelf\}/books/\{book\}") as refusal:
        BOOK.parse(name, "parent")
    assert refusal.value.fields[0].field == "parent"


@pytest.mark.parametrize("text", ["", "A", "1a", "a-", "-a", "a_b", "a" * 64, "a b", "é"])
def test_what_breaks_the_rule_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("24GiB", 24 << 30), ("512 MiB", 512 << 20), ("80G", 80 * 10**9), ("1000", 1000), ("1.5KiB", 1536), ("7b", 7)],
)
def test_a_size_is_read_as_people_write_it(text: str, count: int) -> None:
    assert parse_bytes(text, "--memory") == count


@pytest.mark.parametrize("text", ["", "GiB", "-1", "12XB", "1 2", "1iB", pytest.param("9" * 400, id="endless")])
def test_a_size_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(Usage, match="--memory"):
        parse_bytes(text, "--memory")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (24 << 30, "24 GiB"), (3 << 40, "3.0 TiB")]
)
def test_a_size_is_written_as_people_read_it(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_sum_is_written_with_its_parts() -> None:
    assert format_sum(3 << 30, {"weights": 2 << 30, "cache": 1 << 30}) == "3 GiB (2 GiB weights + 1 GiB cache)"
    assert format_sum(3 << 30, {}) == "3 GiB"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"ROUNDHOUSE_BATCH_SIZE": ""}, None),
        ({"XINFERENCE_BATCH_SIZE": "8"}, ("XINFERENCE_BATCH_SIZE", "8")),
        ({"XINFERENCE_BATCH_SIZE": "8", "ROUNDHOUSE_BATCH_SIZE": "4"}, ("ROUNDHOUSE_BATCH_SIZE", "4")),
    ],
    ids=["unset", "empty", "alias", "our own name first"],
)
def test_a_setting_comes_from_our_name_then_from_the_alias(
    environ: dict[str, str], found: tuple[str, str] | None
) -> None:
    assert setting(environ, "BATCH_SIZE") == found


def test_a_truth_value_that_is_none_is_refused_by_name() -> None:
    assert parse_bool("1", "X")
    assert not parse_bool("off", "X")
    with pytest.raises(Usage, match='X is "maybe"'):
        parse_bool("maybe", "X")


@given(st.integers(-(10**15), 10**15))
def test_durations_and_timestamps_keep_nanoseconds_apart_from_seconds(micros: int) -> None:
    seconds = micros / 1e6
    duration = to_duration(seconds)
    assert abs(from_duration(duration) - seconds) < 1e-6
    assert duration.seconds * duration.nanos >= 0
    assert abs(from_timestamp(to_timestamp(seconds)) - seconds) < 1e-6
    assert 0 <= to_timestamp(seconds).nanos < 10**9


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_grows_and_stays_within_its_bounds(attempt: int, random: float) -> None:
    backoff = Backoff(first_s=1, cap_s=300, jitter=0.5)
    assert 0.5 <= backoff.delay_s(attempt, random) <= 300
    assert backoff.delay_s(attempt) <= backoff.delay_s(attempt + 1)


@given(st.floats(0, 100), st.floats(0.01, 1), st.floats(0, 10))
def test_work_with_its_rest_takes_its_share_of_the_time_unless_the_rest_would_be_too_long(
    worked_s: float, most_fraction: float, cap_s: float
) -> None:
    rest_s = Pace(most_fraction, cap_s).rest_s(worked_s)
    assert 0 <= rest_s <= cap_s
    assert rest_s == cap_s or worked_s == pytest.approx(most_fraction * (worked_s + rest_s))


def test_every_violation_of_a_request_is_named_in_one_error() -> None:
    check = FieldCheck()
    check.require(True, "fine", "never said")
    check.require(False, "top_p", "is 2: use a value in (0, 1]")
    check.require(False, "max_tokens", "is 0: use at least 1")
    with pytest.raises(InvalidArgument) as refusal:
        check.raise_if_any()
    assert [each.field for each in refusal.value.fields] == ["top_p", "max_tokens"]
    assert str(refusal.value) == "top_p: is 2: use a value in (0, 1]; max_tokens: is 0: use at least 1"


@pytest.mark.parametrize(
    ("bad", "named", "has_more"), [(31, 31, False), (32, 32, False), (33, 32, True), (9999, 32, True)]
)
def test_only_the_first_violations_are_kept_and_the_message_says_that_there_are_more(
    bad: int, named: int, has_more: bool
) -> None:
    check = FieldCheck()
    for index in range(bad):
        assert not check.require(False, f"messages[{index}]", "is empty: give it content")
    assert check.require(True, "fine", "never said")
    with pytest.raises(InvalidArgument) as refusal:
        check.raise_if_any()
    assert [each.field for each in refusal.value.fields] == [f"messages[{index}]" for index in range(named)]
    assert named <= MAX_VIOLATIONS
    assert str(refusal.value).endswith("; there are more: mend these first") is has_more
