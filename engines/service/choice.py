"""The output of one choice, as deltas that grow until somebody reads them or they are full."""

from __future__ import annotations

from collections.abc import MutableSequence

from engines.model import End, Tokens
from engines.service import events
from roundhouse.v1 import generation_pb2

FULL = 4096  # tokens that one delta tells of; each takes some 20 bytes, and a message holds at most 4 MiB


class Choice:
    """Writes its events into a list that it may share with others."""

    def __init__(
        self, number: int, resumed: tuple[int, ...], into: MutableSequence[generation_pb2.GenerationEvent]
    ) -> None:
        """`resumed` are ids that it had before."""
        self.into = into
        self.end: End | None = None
        self.token_hash = events.chain(events.EMPTY_HASH, resumed)
        self._number = number
        self._delta: generation_pb2.Delta | None = None  # the last one, while it may grow
        self._told_count = 0  # by it
        self._logprob = 0.0
        self._logprob_count = 0

    @property
    def mean_logprob(self) -> float:
        """Over its tokens, of those whose logprobs came."""
        return self._logprob / self._logprob_count if self._logprob_count else -float("inf")

    def write(self, tokens: Tokens, *, has_logprobs: bool) -> None:
        """Takes what is new. has_logprobs: whether logprobs that came with it are to be told."""
        self.token_hash = events.chain(self.token_hash, tokens.ids)
        self._logprob += sum(each.chosen.logprob for each in tokens.logprobs)
        self._logprob_count += len(tokens.logprobs)
        delta = self._delta or self._opened(tokens.first_position)
        delta.token_ids.extend(tokens.ids)
        delta.text += "".join(tokens.texts)
        self._told_count += len(tokens.ids)
        if has_logprobs:
            delta.logprobs.extend(map(events.logprobs, tokens.logprobs))
            self._told_count += sum(len(each.top) for each in tokens.logprobs)
        if self._told_count >= FULL:
            self.close()

    def close(self) -> None:
        """Says that the last delta is not to grow any more."""
        self._delta = None

    def _opened(self, first_position: int) -> generation_pb2.Delta:
        event = generation_pb2.GenerationEvent()
        event.delta.choice = self._number
        event.delta.first_position = first_position
        event.delta.channel = generation_pb2.CHANNEL_CONTENT
        self.into.append(event)
        self._delta, self._told_count = event.delta, 0
        return event.delta
