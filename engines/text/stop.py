"""Finds stop texts in text that comes in pieces, and shows nothing of them."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Lets text through up to the first stop text that is complete; of several at once, the longest counts.

    Holds back exactly the longest end of the text that could begin a stop text. How the text is cut into pieces makes
    no difference.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "a stop text is empty"
        self._patterns = [_Pattern(stop) for stop in stops]
        self._held = ""
        self.matched = ""

    def write(self, text: str) -> str:
        """Takes more text, and returns what may be shown of it and of what was held. After a match that is nothing."""
        if self.matched:
            return ""
        if not self._patterns:
            return text
        pending = self._held + text
        for end in range(len(self._held), len(pending)):
            complete = [pattern.text for pattern in self._patterns if pattern.read(pending[end])]
            if complete:
                self.matched = max(complete, key=len)
                self._held = ""
                return pending[: end + 1 - len(self.matched)]
        shown_count = len(pending) - max(pattern.length for pattern in self._patterns)
        self._held = pending[shown_count:]
        return pending[:shown_count]

    def close(self) -> str:
        """Returns what was held back. There is no more to come."""
        held, self._held = self._held, ""
        return held


class _Pattern:
    """One stop text, and how much of it the text ends with. Source: Knuth, Morris, Pratt 1977."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.length = 0  # of the longest end of the text that begins the pattern
        self._borders = [0] * len(text)  # for each length - 1, the longest shorter one that is such an end as well
        for end in range(1, len(text)):
            self._borders[end] = self._longer(self._borders[end - 1], text[end])

    def read(self, char: str) -> bool:
        """Takes the next character, and tells whether it completes the pattern; there is no reading on behind that."""
        self.length = self._longer(self.length, char)
        return self.length == len(self.text)

    def _longer(self, length: int, char: str) -> int:
        while length and self.text[length] != char:
            length = self._borders[length - 1]
        return length + 1 if self.text[length] == char else 0
