"""All that one choice has given, by position, for readers that are at different places in it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from engines.model import End, Logprobs, Tokens
from engines.service import events
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.v1 import generation_pb2


class Choice:
    """Columns over the positions of an output.

    [0, first_position)         ids alone
    [first_position, position)  all there is to tell
    [position, len(ids))        ids whose texts are still being read; only of an output that went on behind another
    """

    def __init__(self, number: int, given: Sequence[int] = (), *, has_logprobs: bool = False) -> None:
        """`given` are ids that it had before. has_logprobs: whether logprobs are told, which are not known of these."""
        self.number = number
        self.ids = array("i", given)
        self.first_position = len(given) if has_logprobs else 0
        self.position = self.first_position
        self.end: End | None = None
        self.finished: generation_pb2.GenerationEvent | None = None
        self.token_hash = chain(EMPTY, given)
        self._has_logprobs = has_logprobs
        self._texts: list[str] = []
        self._logprobs: list[Logprobs] = []
        self._logprob_sum = 0.0
        self._logprob_count = 0

    @property
    def mean_logprob(self) -> float:
        """Over its tokens, of those whose logprobs came."""
        return self._logprob_sum / self._logprob_count if self._logprob_count else -float("inf")

    def reread(self, texts: Sequence[str]) -> None:
        """Takes the texts of the ids that it had before."""
        if not self._has_logprobs:
            self._texts.extend(texts)
            self.position += len(texts)

    def write(self, tokens: Tokens) -> None:
        """Takes what is new."""
        assert tokens.first_position == len(self.ids) == self.position
        self.token_hash = chain(self.token_hash, tokens.ids)
        self.ids.extend(tokens.ids)
        self._texts.extend(tokens.texts)
        if tokens.logprobs:
            self._logprob_sum += sum(each.chosen.logprob for each in tokens.logprobs)
            self._logprob_count += len(tokens.logprobs)
            if self._has_logprobs:
                self._logprobs.extend(tokens.logprobs)
        self.position += len(tokens.ids)

    def close(self, end: End) -> None:
        """Takes the last there is."""
        self.end = end
        if self.position < len(self.ids):  # it ended before the texts of what it had were read: nobody ever will
            self.first_position = self.position = len(self.ids)

    def delta(self, first: int, end: int) -> generation_pb2.GenerationEvent:
        """Returns [first, end) of it, which must be there."""
        event = generation_pb2.GenerationEvent()
        delta = event.delta
        delta.choice, delta.first_position, delta.channel = self.number, first, generation_pb2.CHANNEL_CONTENT
        begin, stop = first - self.first_position, end - self.first_position
        if end - first == 1:  # as for every reader that keeps up
            delta.token_ids.append(self.ids[first])
            delta.text = self._texts[begin]
        else:
            delta.token_ids.extend(self.ids[first:end])
            delta.text = "".join(self._texts[begin:stop])
        if self._has_logprobs:
            delta.logprobs.extend(map(events.logprobs, self._logprobs[begin:stop]))
        return event

    def drop(self, position: int) -> None:
        """Forgets all but the ids of what lies before a position."""
        count = position - self.first_position
        if count > 0:
            del self._texts[:count]
            del self._logprobs[:count]
            self.first_position = position
