"""What a grammar lets one output go on with."""

from __future__ import annotations

from collections.abc import Iterable

import llguidance

from engines.model import NothingAllowed

NOTHING = "NoExtensionBias"  # how llguidance says that neither a token nor the end may come


class Vocabulary:
    """The ids of a model, as llguidance knows them."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, size: int) -> None:
        """size: ids of the model. It may have fewer than the tokenizer, or more, of which none is ever allowed."""
        self.tokenizer = tokenizer
        self.size = size
        self.model_ends = frozenset(token for token in tokenizer.eos_tokens if token < size)

    def ends(self, ids: Iterable[int]) -> frozenset[int]:
        """Returns those that have no text. Others are text, and end an output where the grammar has such text."""
        return frozenset(each for each in ids if each < self.size and self.tokenizer.is_special_token(each))

    def mask(self, matcher: llguidance.LLMatcher, ends: Iterable[int]) -> bytes:
        """Returns a bit for each id: 1 if its text may come next, and for `ends` if the output may end."""
        bits = bytearray(matcher.compute_bitmask()[: -(-self.size // 8)])
        bits.extend(bytes(-(-self.size // 8) - len(bits)))
        if self.size % 8:
            bits[-1] &= (1 << self.size % 8) - 1
        for token in self.model_ends:  # llguidance allows them, but they may mean nothing to this output
            bits[token >> 3] &= ~(1 << (token & 7))
        if matcher.is_accepting():
            for token in ends:
                bits[token >> 3] |= 1 << (token & 7)
        return bytes(bits)


class Matching:
    """The `Constraint` of one output."""

    def __init__(self, vocabulary: Vocabulary, matcher: llguidance.LLMatcher, ends: frozenset[int]) -> None:
        """`matcher` belongs to this output alone; `ends` are ids without text that end it."""
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._ends = ends
        self._has_ended = False

    def mask(self) -> bytes:
        """See `Constraint`. Raises NothingAllowed if nothing may come, or if finding out takes too long."""
        if self._has_ended:
            raise NothingAllowed("the output has ended")
        mask = self._vocabulary.mask(self._matcher, self._ends)
        self._raise_if_lost()
        if mask == bytes(len(mask)):
            raise NothingAllowed("the grammar allows neither a token nor the end here")
        return mask

    def accept(self, token: int) -> None:
        """See `Constraint`. Raises ValueError for an id that may not come."""
        is_end = token in self._ends
        is_allowed = self._matcher.is_accepting() if is_end else self._takes(token)
        self._raise_if_lost()
        if self._has_ended or not is_allowed:
            raise ValueError(f"id {token} may not come where the grammar is")
        self._has_ended = is_end

    def _takes(self, token: int) -> bool:
        if token in self._vocabulary.model_ends or not 0 <= token < self._vocabulary.size:
            return False
        # `consume_token` would leave the matcher with an error.
        return self._matcher.try_consume_tokens([token]) == 1

    def _raise_if_lost(self) -> None:
        error = words(self._matcher.get_error())
        if error and error != NOTHING:
            raise NothingAllowed(f"the grammar takes too long to follow ({error})")


def words(said: object) -> str:
    """Returns what llguidance says, without the picture of its state that may come behind it."""
    return str(said).partition("\n<")[0].strip()
