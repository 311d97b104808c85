"""Numbers as people read them."""

import pytest

from roundhouse.cli.units import count_of, format_age, format_seconds, format_share


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0004, "0.4 ms"),
        (0.041, "41 ms"),
        (0.9999, "1.0 s"),
        (2.54, "2.5 s"),
        (9.96, "10 s"),
        (59.9, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3600, "1 h 00 m"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_shows_the_digits_that_matter(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


def test_ages_shares_and_counts_are_short() -> None:
    assert [format_age(0.4), format_age(7.6), format_age(75)] == ["0 s", "8 s", "1 m 15 s"]
    assert format_share(0.254) == "25 %"
    assert [count_of(1, "token"), count_of(0, "token")] == ["1 token", "0 tokens"]
