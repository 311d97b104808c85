"""One who reads what a request has given: each position of each choice once, in order, in pieces that fit messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.service.choice import Choice
from engines.service.echo import FULL
from roundhouse.kit.errors import TooLong
from roundhouse.v1 import errors_pb2, generation_pb2

Generated = generation_pb2.GenerationEvent


class Source(Protocol):
    """What is read."""

    told_each: int  # tokens that one token of an output tells of
    awaits_scores: bool  # the prompt cannot be told yet
    usage: Generated | None  # the last event, once it is known

    @property
    def told(self) -> Sequence[Choice]:
        """The choices; none while it is not known which they are."""

    def prompt_pieces(self) -> Iterator[Generated]:
        """Returns the prompt."""


@dataclass(slots=True)
class _Cursor:
    """How far a choice has been read."""

    position: int
    knows_end: bool = False


class Reader:
    """However far it is behind, it takes what there is in a few large pieces; while it keeps up, token by token."""

    def __init__(self, source: Source, positions: Sequence[int], *, wants_prompt: bool) -> None:
        """positions: the first one wanted of each choice. Raises TooLong if one is not kept any more."""
        self._source = source
        self._cursors = [_Cursor(position) for position in positions]
        self._wants_prompt = wants_prompt
        self._prompt: Iterator[Generated] | None = None
        self._has_usage = False
        self._turn = 0  # the choice that goes first, so that one that is always behind keeps none from being told
        for choice, cursor in zip(source.told, self._cursors, strict=False):
            if cursor.position < choice.first_position:
                raise _dropped(choice, cursor.position)

    def position(self, choice: int) -> int:
        """Returns the first position of a choice that has not been read."""
        return self._cursors[choice].position

    @property
    def is_ahead(self) -> bool:
        """Tells whether what lies before it is still to come, or it is not known which choices that is of."""
        told = self._source.told
        reached = [choice.position for choice in told] if told else [0] * len(self._cursors)
        return any(cursor.position > position for cursor, position in zip(self._cursors, reached, strict=True))

    def take(self) -> list[Generated]:
        """Returns what comes next, as much as fits a message; nothing if there is nothing yet, or no more."""
        if self._wants_prompt:
            if self._source.awaits_scores:  # the prompt comes before any delta
                return []
            if self._prompt is None:
                self._prompt = self._source.prompt_pieces()
            piece = next(self._prompt, None)
            if piece is not None:
                return [piece]
            self._wants_prompt = False
        return self._take()

    def _take(self) -> list[Generated]:
        source, room = self._source, FULL
        told, cursors, taken = source.told, self._cursors, []
        for number in range(self._turn, self._turn + len(told)):
            place = number % len(told)
            choice, cursor = told[place], cursors[place]
            first, end = cursor.position, choice.position
            if first < end:
                if room <= 0:
                    self._turn = place
                    break
                if end - first > 1:
                    end = min(end, first + max(1, room // source.told_each))
                if first < choice.first_position:
                    raise _dropped(choice, first)
                taken.append(choice.delta(first, end))
                cursor.position = end
                room -= (end - first) * source.told_each
            if choice.finished is not None and not cursor.knows_end and end >= choice.position:
                cursor.knows_end = True
                taken.append(choice.finished)
        if source.usage is not None and not self._has_usage and all(each.knows_end for each in cursors):
            self._has_usage = True
            taken.append(source.usage)
        return taken


def _dropped(choice: Choice, position: int) -> TooLong:
    return TooLong(
        f"position {position} of choice {choice.number} is not kept any more, the first one that is "
        f"is {choice.first_position}: attach from there",
        reason=errors_pb2.ERROR_REASON_POSITION_DROPPED,
        metadata={"choice": str(choice.number), "first_position": str(choice.first_position)},
    )
