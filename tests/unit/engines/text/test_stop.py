from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.text.stop import StopMatcher

TEXTS = st.text(alphabet="ab.", max_size=30)
STOPS = st.lists(st.text(alphabet="ab.", min_size=1, max_size=5), max_size=4)


def reference(text: str, stops: list[str]) -> tuple[str, str]:
    """What is shown, and the stop text that comes to its end first; of several, the longest."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, ""


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *[cut % (len(text) + 1) for cut in cuts]})
    return [text[begin:end] for begin, end in pairwise(places)]


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "matched"),
    [
        (["END"], ["one ", "two"], ["one ", "two"], ""),
        (["END"], ["one E", "ND two"], ["one ", ""], "END"),
        (["END"], ["one E", "Nd two"], ["one ", "ENd two"], ""),
        (["END"], ["E", "N", "D"], ["", "", ""], "END"),
        (["aab"], ["aaa", "b"], ["a", ""], "aab"),
        (["abc", "b"], ["abc"], ["a"], "b"),
        (["c", "bc"], ["abc"], ["a"], "bc"),
        (["\n\n"], ["a\n", "b\n", "\n"], ["a", "\nb", ""], "\n\n"),
    ],
    ids=[
        "none",
        "over two pieces",
        "only its beginning",
        "letter by letter",
        "a false start",
        "the first to be complete",
        "the longest of two",
        "lines",
    ],
)
def test_what_is_shown(stops: list[str], pieces: list[str], shown: list[str], matched: str) -> None:
    matcher = StopMatcher(stops)
    assert [matcher.write(piece) for piece in pieces] == shown
    assert matcher.matched == matched


@settings(deadline=None)
@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 30), max_size=6))
def test_how_the_text_is_cut_makes_no_difference(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.write(piece) for piece in pieces_of(text, cuts)) + matcher.close()
    assert (shown, matcher.matched) == reference(text, stops)


@settings(deadline=None)
@given(text=TEXTS, stops=STOPS)
def test_it_holds_back_what_could_begin_a_stop_text_and_not_one_character_more(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = matcher.write(text)
    if not matcher.matched:
        ends = [text[len(text) - size :] for size in range(1, len(text) + 1)]
        held = [end for end in ends if any(stop != end and stop.startswith(end) for stop in stops)]
        assert text == shown + max(held, key=len, default="")


def test_nothing_is_shown_behind_a_match() -> None:
    matcher = StopMatcher(["."])
    assert matcher.write("a.b") == "a"
    assert matcher.write("c") == matcher.close() == ""


def test_an_empty_stop_text_is_a_fault() -> None:
    with pytest.raises(AssertionError):
        StopMatcher([""])
