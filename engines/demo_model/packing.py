"""Packs conversations into rows of tokens, each with a weight that says how much the model should learn it."""

from collections.abc import Iterator
from random import Random

from tokenizers import Tokenizer

from engines.demo_model.corpus import conversations
from engines.demo_model.corpus.turns import Conversation
from engines.demo_model.rendering import Segment, segments

_PROMPT_WEIGHT = 0.1  # enough to learn what words go together, little enough not to drown the answers
_SHORT_ROW = 256
_TOKENS_PER_TURN = 45  # a mean over the corpus, to fill long rows with one conversation


def pack_row(random: Random, tokenizer: Tokenizer, length: int) -> tuple[list[int], list[float]]:
    """Returns one row of so many tokens and their weights; it starts with a conversation's start.

    A row longer than the short ones begins with one long conversation, so that distances up to the row are learnt.
    """
    ids: list[int] = []
    weights: list[float] = []
    for conversation in _for_row(random, length):
        for segment in segments(conversation):
            piece = tokenizer.encode(segment.text).ids
            ids += piece
            weights += _weights(segment, len(piece))
        if len(ids) >= length:
            return ids[:length], weights[:length]
    raise AssertionError("the corpus has no end")


def _for_row(random: Random, length: int) -> Iterator[Conversation]:
    if length > _SHORT_ROW:
        most = length // _TOKENS_PER_TURN
        if random.random() < 0.3:
            yield conversations.name_recall(random, distance=random.randrange(most - 3))
        else:
            yield conversations.of_turns(random, random.randrange(3, most))
    while True:
        yield conversations.conversation(random)


def _weights(segment: Segment, count: int) -> list[float]:
    if segment.role == "prompt":
        return [_PROMPT_WEIGHT] * count
    if segment.role == "history":
        # An answer in the history follows the turn's start without a thought; where it starts must not be learnt.
        return [0.0] + [1.0] * (count - 1)
    return [1.0] * count
