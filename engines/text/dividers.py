"""Keeps messages from spelling the tokens that divide a conversation: only the chat template may write those."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend

_SEAM = "\U0010fffd"  # the last private-use character
_START = 2  # characters; few texts hold so much of a divider, and what looks for the rest takes longer


def dividers(added: Mapping[int, AddedToken], end_ids: Collection[int], template: str) -> frozenset[str]:
    """Returns the texts that a message must not give as tokens, of a tokenizer's added tokens.

    These are all special tokens, which no output shows either; what ends an output; and of the rest what the template
    names and looks like a mark, as `<｜User｜>` of DeepSeek does. But not tags in pairs, as `<think>` and `</think>`:
    they mark a part of a turn and not its end, and an output shows them, so the turns of an assistant may hold them.
    """
    texts = {token.content for token in added.values()}
    return frozenset(
        token.content
        for number, token in added.items()
        if token.special or number in end_ids or (token.content in template and _is_mark(token.content, texts))
    )


def seam_for(texts: Collection[str]) -> str:
    """Returns a text that none of the texts holds, and that no template takes for a space or a letter."""
    seam = _SEAM
    while any(seam in text for text in texts):
        seam += seam
    return seam


class Breaker:
    """Breaks dividers in two. They are found as they are spelled, whatever a normalizer would make of other text."""

    def __init__(self, dividers: Iterable[str]) -> None:
        # A divider of one character has no middle; none is known, as is none with the seam in it.
        broken = sorted(each for each in dividers if len(each) > 1 and _SEAM not in each)
        self._starts = {each[:_START] for each in broken}
        # A tokenizer that knows nothing else: it passes a text once, however many dividers there are, without the
        # interpreter's lock.
        self._finder = Backend(models.BPE())
        self._finder.add_special_tokens([AddedToken(each, normalized=False) for each in broken])

    def broken(self, text: str, seam: str) -> str:
        """Returns the text with a seam before the last character of each divider."""
        if not any(start in text for start in self._starts):
            return text
        # Again, because what begins within a divider is found once that one is broken.
        while lasts := self._lasts(text):
            text = seam.join(text[first:last] for first, last in pairwise([0, *lasts, len(text)]))
        return text

    def _lasts(self, text: str) -> list[int]:
        [encoding] = self._finder.encode_batch([text], add_special_tokens=False)
        return [end - 1 for _, end in encoding.offsets]


def _is_mark(text: str, texts: Collection[str]) -> bool:
    # Some tokenizers have tokens for spaces and for words as well, which a template holds by chance.
    has_brackets = not text[0].isalnum() and not text[-1].isalnum() and any(each.isalnum() for each in text)
    other = f"<{text[2:]}" if text.startswith("</") else f"</{text[1:]}"
    return has_brackets and not (text.startswith("<") and other in texts)
