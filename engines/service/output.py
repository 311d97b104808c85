"""What a request has given and nobody has read yet, as events of the contract. Belongs to the event loop.

However far its reader is behind, this holds no more than what the request asked to be told, and gives it out in pieces
that fit messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.model import Cause, End, Event, FinishReason, Logprobs, PromptScored, Tokens
from engines.service import events
from engines.service.choice import FULL, Choice
from engines.service.outcome import Outcome
from roundhouse.v1 import generation_pb2

TEXT = 16_384  # characters of a prompt in one piece

Generated = generation_pb2.GenerationEvent


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reader is to be told."""

    prompt: tuple[int, ...]
    choice_count: int = 1
    sent_count: int = 1  # if there are more choices: the best so many of them, when all have ended
    echo: str | None = None  # the text of the prompt; None if it is not to be sent
    has_logprobs: bool = False
    scorer: int | None = None  # the choice that comes with the logprobs of the prompt; None if they are not to be sent
    resumed: Sequence[tuple[int, ...]] = ()  # ids that each choice had before


class Output:
    """Takes what the step loop hands out, and gives events, in order for each choice."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._is_ranked = asked.sent_count < asked.choice_count
        self._unread: deque[Generated] = deque()
        self._choices = [
            Choice(number, output, [] if self._is_ranked else self._unread)
            for number, output in enumerate(asked.resumed or [()] * asked.choice_count)
        ]
        self._prompt: Iterator[Generated] = iter(())
        self._awaits_scores = asked.scorer is not None and len(asked.prompt) > 1
        if not self._awaits_scores:
            self._tell_prompt(None if asked.scorer is None else ())

    def put(self, event: Event) -> None:
        """Takes what is new."""
        match event:
            case PromptScored():
                if self._awaits_scores:
                    self._tell_prompt(event.logprobs)
            case Tokens():
                self._choices[event.choice].write(event, has_logprobs=self._asked.has_logprobs)
            case End():
                if self._awaits_scores and event.choice == self._asked.scorer:
                    self._tell_prompt(None)  # it ended before it had any
                choice = self._choices[event.choice]
                choice.end = event
                if not (self._is_ranked or _is_error(event.reason, event.cause)):
                    self._unread.append(events.finished(event, choice.token_hash, event.choice))

    def finish(self, outcome: Outcome, *, before_submit_s: float, total_s: float) -> None:
        """Says that all choices have ended. A request that ends with an error has no `usage`."""
        if ends_with_error(outcome):
            return
        if self._is_ranked:
            self._send_best()
        count = len(self._asked.prompt)
        self._unread.append(events.usage(outcome, count, before_submit_s=before_submit_s, total_s=total_s))

    def take(self) -> list[Generated]:
        """Returns what comes next, as much as fits a message; nothing if there is nothing yet."""
        if self._awaits_scores:  # the prompt comes before any delta
            return []
        piece = next(self._prompt, None)
        if piece is not None:
            return [piece]
        if not self._is_ranked:  # what is taken now must not grow any more
            for choice in self._choices:
                choice.close()
        taken: list[Generated] = []
        told_count = 0
        while self._unread and told_count < FULL:
            event = self._unread.popleft()
            taken.append(event)
            told_count += len(event.delta.token_ids) + sum(len(each.top) for each in event.delta.logprobs)
        return taken

    def _send_best(self) -> None:
        best = sorted(self._choices, key=lambda choice: -choice.mean_logprob)[: self._asked.sent_count]
        for number, choice in enumerate(best):
            assert choice.end is not None
            for event in choice.into:
                event.delta.choice = number
            self._unread.extend(choice.into)
            self._unread.append(events.finished(choice.end, choice.token_hash, number))

    def _tell_prompt(self, scores: Sequence[Logprobs] | None) -> None:
        """Lets the prompt be read. scores: of its tokens from the second on; None if there are none to tell."""
        self._awaits_scores = False
        if self._asked.echo is not None or scores is not None:
            self._prompt = _pieces(self._asked.prompt, self._asked.echo or "", scores)


def ends_with_error(outcome: Outcome) -> bool:
    """Tells whether an error ends the stream, in place of `usage`."""
    return _is_error(outcome.reason, outcome.cause)


def _is_error(reason: FinishReason, cause: Cause | None) -> bool:
    return reason is FinishReason.FAILED or cause in (Cause.DEADLINE, Cause.SIBLING)


def _pieces(ids: tuple[int, ...], text: str, scores: Sequence[Logprobs] | None) -> Iterator[Generated]:
    """Yields a prompt, one piece at a time: a long one takes a while."""
    size = FULL // (1 + len(scores[0].top)) if scores else FULL
    for number in range(max(-(-len(ids) // size), -(-len(text) // TEXT))):
        first = min(number * size, len(ids))
        piece = ids[first : first + size]
        told = () if scores is None else [_score(scores, first + offset) for offset in range(len(piece))]
        yield Generated(
            prompt=generation_pb2.Prompt(
                first_position=first,
                token_ids=piece,
                text=text[number * TEXT : (number + 1) * TEXT],
                logprobs=told,
            )
        )


def _score(scores: Sequence[Logprobs], position: int) -> generation_pb2.Logprobs:
    return events.logprobs(scores[position - 1]) if position else generation_pb2.Logprobs()
