"""What of one run of tokens, the prompt or a choice, its reader has been told. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TypeVar

from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.errors import Internal
from roundhouse.v1 import generation_pb2

Piece = TypeVar("Piece", generation_pb2.Delta, generation_pb2.Prompt)

_INSIDE = -1


class OutOfOrder(Internal):
    """What came does not fit behind what was told: a server left something out. Raised here, never sent."""


class TokensDiffer(Internal):
    """What was told is not what the engine computed: the chains over the ids differ. Raised here, never sent."""


class Told:
    """Grows piece by piece. Of one that goes on behind tokens that were told elsewhere, their ids may not be known."""

    def __init__(self, name: str, *, count: int = 0, ids: Iterable[int] = (), is_chained: bool = True) -> None:
        """name: for errors. count: tokens before `ids`, which are not known. is_chained: whether `check` is wanted."""
        self._name = name
        self._unknown = count
        self.ids = array("i", ids)
        # Of each position behind the unknown ones, the characters told before it; the end included.
        self._text_ends = array("q", [_INSIDE] * len(self.ids) + [0])
        self._chain = chain(EMPTY, self.ids) if is_chained and not count else None
        self._rest_told = self._rest_come = 0  # pieces of text without tokens, behind all that have some

    @property
    def count(self) -> int:
        """Tokens told, which is also the position of the next one."""
        return self._unknown + len(self.ids)

    def begin_again(self) -> None:
        """Says that what was told may come once more, in the same pieces."""
        self._rest_come = 0

    def take(self, piece: Piece) -> Piece | None:
        """Returns what of a piece is new: all, the end of it, or nothing. Raises OutOfOrder for a gap."""
        size, skipped = len(piece.token_ids), self.count - piece.first_position
        if skipped < 0:
            raise OutOfOrder(
                f"{self._name} was told up to position {self.count}, and goes on at {piece.first_position}: try again"
            )
        if skipped and skipped >= size:
            return None
        if not size:
            self._rest_come += 1
            if self._rest_come <= self._rest_told:
                return None
            self._rest_told = self._rest_come
        new = self._cut(piece, skipped) if skipped else piece
        self._add(new.token_ids, len(new.text))
        return new

    def check(self, token_hash: bytes) -> None:
        """Raises TokensDiffer if what was told from the beginning has another chain."""
        if token_hash and self._chain is not None and self._chain != token_hash:
            raise TokensDiffer(
                f"the {self.count} tokens of {self._name} that came are not those that the engine computed: "
                "send the request again, and report it"
            )

    def _add(self, ids: Iterable[int], text_size: int) -> None:
        before = len(self.ids)
        end = self._text_ends[-1] + text_size
        self.ids.extend(ids)
        self._text_ends.extend([_INSIDE] * (len(self.ids) - before))
        self._text_ends[-1] = end
        if self._chain is not None:
            self._chain = chain(self._chain, self.ids[before:])

    def _cut(self, piece: Piece, skipped: int) -> Piece:
        """Returns the end of a piece. Its text begins with what was told since its first position."""
        start = piece.first_position - self._unknown
        before = self._text_ends[start] if start >= 0 else _INSIDE
        if before == _INSIDE:
            raise OutOfOrder(
                f"{self._name} was told up to position {self.count}, and a piece from {piece.first_position} on cannot "
                "be cut there: try again"
            )
        new = type(piece)()
        new.CopyFrom(piece)
        new.first_position = self.count
        new.text = piece.text[self._text_ends[-1] - before :]
        del new.token_ids[:skipped], new.logprobs[:skipped]
        return new
