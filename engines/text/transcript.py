"""The text of one output, from its ids, up to the first stop text."""

from __future__ import annotations

from engines.text.decode import Decoder
from engines.text.stop import StopMatcher


class Transcript:
    """Decodes, then looks for stop texts."""

    def __init__(self, decoder: Decoder, stops: tuple[str, ...]) -> None:
        self._decoder = decoder
        self._matcher = StopMatcher(stops)

    @property
    def matched_stop(self) -> str:
        """The stop text that the output holds; empty while there is none."""
        return self._matcher.matched

    def write(self, token: int) -> str:
        """Takes the next id, and returns the text that has become certain."""
        return self._matcher.write(self._decoder.write(token))

    def close(self) -> str:
        """Returns the text that was held back. There is no more to come."""
        return self._matcher.write(self._decoder.close()) + self._matcher.close()
