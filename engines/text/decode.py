"""Turns output ids into text one at a time; what it has given never changes and never cuts a character."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

_REPLACEMENT = "\ufffd"  # stands for bytes that are no character, or not one yet
_MAX_HELD = 3  # a character has at most 4 bytes, so no more than 3 can wait for the last where the rest is no text
_MAX_FRESH, _CONTEXT = 48, 16  # ids; reached only by output that is no text


class Decoder:
    """Gives the text of each id as soon as it is certain; all of it together is what decoding all ids at once gives.

    Where single bytes are ids, that holds for text, with at most 14 literal U+FFFD on end. Bytes that are no text, as a
    character that is cut off, spoil the whole run of bytes before them when decoded at once; here what is given stays.

    Decodes a window of the last ids, because the text of an id depends on those before it: a space may be left out at
    the beginning, and a character may be spread over several ids.

    [0, fresh)  context: its text has been given, and it ended where a character ended
    [fresh, …)  text given up to `shown`
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], hidden: Collection[int] = frozenset()) -> None:
        """`decode` decodes ids at once, `hidden` are the ids that it leaves out."""
        self._decode = decode
        self._hidden = hidden
        self._window: list[int] = []
        self._fresh = 0
        self._shown = ""  # what of the window's text has been given

    def write(self, token: int) -> str:
        """Takes the next id, and returns the text that has become certain."""
        if token in self._hidden:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        is_full = len(self._window) - self._fresh >= _MAX_FRESH
        # Not only the last of them wait: what reads as garbage may be the beginning of a run that has a U+FFFD in it.
        certain = _certain(text, _MAX_HELD if is_full else len(text))
        is_whole = certain == text
        # Where single bytes are ids, a whole run of them reads as garbage until its last character is complete.
        is_contradicting = not certain.startswith(self._shown)
        if is_contradicting and not is_whole and not is_full:
            return ""
        given = certain[len(self._shown) :]
        self._shown = certain
        if given and is_whole:
            self._slide(self._fresh)
        elif is_full:
            self._slide(len(self._window) - _CONTEXT)
        return given

    def close(self) -> str:
        """Returns the text of what never became a character."""
        text = self._decode(self._window)
        given = text[len(self._shown) :]
        self._shown = text
        return given

    def _slide(self, first: int) -> None:
        self._window = self._window[first:]
        self._fresh = len(self._window)
        self._shown = _certain(self._decode(self._window), _MAX_HELD)


def _certain(text: str, most_held: int) -> str:
    held = 0
    while held < min(most_held, len(text)) and text[-1 - held] == _REPLACEMENT:
        held += 1
    return text[: len(text) - held]
