"""What a request has given, kept for all who read it: now, later, or again. Belongs to the event loop."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.model import Cause, End, Event, FinishReason, Logprobs, PromptScored, Reread, Tokens
from engines.service import echo, events
from engines.service.choice import Choice
from engines.service.outcome import Outcome
from engines.service.reader import Reader
from roundhouse.v1 import generation_pb2

LIMIT = 65_536  # told tokens that are kept though all have read them; each takes some 100 bytes
# Whoever is told of such an end gets an error in place of `finished` and `usage`.
_ERRORS = (Cause.DEADLINE, Cause.SIBLING, Cause.HANDOVER)


@dataclass(frozen=True, slots=True)
class Asked:
    """What readers are to be told."""

    prompt: Sequence[int]
    choice_count: int = 1
    sent_count: int = 1  # if there are more choices: the best so many of them, when all have ended
    echo: str | None = None  # the text of the prompt; None if it is not to be sent
    logprobs: int | None = None  # alternatives that are told with each token; None if no logprobs are
    scorer: int | None = None  # the choice that comes with the logprobs of the prompt; None if they are not to be sent
    resumed: Sequence[tuple[int, ...]] = ()  # ids that each choice had before
    exactness: generation_pb2.Exactness = generation_pb2.EXACTNESS_EXACT


class Log:
    """Takes what the step loop hands out, and opens readers.

    Bounded by what the request may give, and once all who read are past it by `limit` told tokens: a token of the
    output is one, and so is each alternative to it. Ids are kept all.
    """

    def __init__(self, asked: Asked, *, limit: int = LIMIT) -> None:
        self.prompt = array("i", asked.prompt)
        self.told_each = 1 + (asked.logprobs or 0)
        self.usage: generation_pb2.GenerationEvent | None = None
        self._asked = asked
        self._is_ranked = asked.sent_count < asked.choice_count
        self._choices = [
            Choice(number, given, has_logprobs=asked.logprobs is not None)
            for number, given in enumerate(asked.resumed or [()] * asked.choice_count)
        ]
        self._told = [] if self._is_ranked else self._choices
        self._kept_each = max(1, limit // (self.told_each * asked.choice_count))
        self._readers: set[Reader] = set()
        self._scores: Sequence[Logprobs] | None = None if asked.scorer is None else ()
        self.awaits_scores = asked.scorer is not None and len(asked.prompt) > 1

    @property
    def choices(self) -> Sequence[Choice]:
        """All choices, those of `best_of` that are not told among them, as the step loop knows them."""
        return self._choices

    @property
    def told(self) -> Sequence[Choice]:
        """The choices that are told, as their readers know them; none while it is not known which are the best."""
        return self._told

    @property
    def told_count(self) -> int:
        """What is kept, in told tokens; the prompt counts as well."""
        kept = sum(each.position - each.first_position for each in self._choices) * self.told_each
        return kept + len(self.prompt) + len(self._scores or ()) * self.told_each

    @property
    def finishes(self) -> Sequence[generation_pb2.Finished]:
        """How the choices that are told have ended, those that have."""
        return [each.finished.finished for each in self._told if each.finished is not None]

    def first_positions(self) -> Sequence[int]:
        """Returns where the stream of the call that began the request begins, for each choice that is told."""
        if self._is_ranked or not self._asked.resumed:
            return [0] * self._asked.sent_count
        return [len(each) for each in self._asked.resumed]

    def read(self, positions: Sequence[int], *, wants_prompt: bool) -> Reader:
        """Opens a reader, who must be closed. positions: the first one wanted of each choice that is told.

        Raises TooLong if one is not kept any more.
        """
        reader = Reader(self, positions, wants_prompt=wants_prompt)
        self._readers.add(reader)
        return reader

    def close(self, reader: Reader) -> None:
        """Says that a reader reads no more."""
        self._readers.discard(reader)

    def prompt_pieces(self) -> Iterator[generation_pb2.GenerationEvent]:
        """Returns the prompt, if it is to be told."""
        if self._asked.echo is None and self._scores is None:
            return iter(())
        return echo.pieces(self.prompt, self._asked.echo or "", self._scores)

    def put(self, event: Event) -> None:
        """Takes what is new."""
        choice = self._choices[event.choice]
        match event:
            case Tokens():
                choice.write(event)
                if choice.position - choice.first_position > self._kept_each:
                    self._shorten(choice)
            case PromptScored():
                if self.awaits_scores:
                    self._scored(event.logprobs)
            case Reread():
                choice.reread(event.texts)
            case End():
                if self.awaits_scores and event.choice == self._asked.scorer:
                    self._scored(None)  # it ended before it had any
                choice.close(event)
                if not (self._is_ranked or _is_error(event.reason, event.cause)):
                    choice.finished = self._finished(choice, event)

    def finish(self, outcome: Outcome, *, before_submit_s: float, total_s: float) -> None:
        """Says that all choices have ended. A request that ends with an error has no `usage`."""
        if ends_with_error(outcome):
            return
        if self._is_ranked:
            self._rank()
        count = len(self.prompt)
        self.usage = events.usage(outcome, count, before_submit_s=before_submit_s, total_s=total_s)

    def _finished(self, choice: Choice, end: End) -> generation_pb2.GenerationEvent:
        return events.finished(end, choice.token_hash, choice.number, self._asked.exactness)

    def _rank(self) -> None:
        best = sorted(self._choices, key=lambda choice: -choice.mean_logprob)[: self._asked.sent_count]
        for number, choice in enumerate(best):
            assert choice.end is not None
            choice.number = number
            choice.finished = self._finished(choice, choice.end)
        self._told = best
        self._choices = best  # nobody is ever told of the others

    def _shorten(self, choice: Choice) -> None:
        """Drops an eighth more than needed, so that it is not done for each token."""
        if not self._is_ranked:
            read = min((each.position(choice.number) for each in self._readers), default=choice.position)
            choice.drop(min(read, choice.position - self._kept_each + self._kept_each // 8))

    def _scored(self, scores: Sequence[Logprobs] | None) -> None:
        self.awaits_scores = False
        self._scores = scores


def ends_with_error(outcome: Outcome) -> bool:
    """Tells whether an error ends the stream, in place of `usage`."""
    return _is_error(outcome.reason, outcome.cause)


def _is_error(reason: FinishReason, cause: Cause | None) -> bool:
    return reason is FinishReason.FAILED or cause in _ERRORS
