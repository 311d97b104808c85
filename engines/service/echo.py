"""A prompt as events, in pieces that fit messages. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engines.model import Logprobs
from engines.service import events
from roundhouse.v1 import generation_pb2

FULL = 4096  # tokens that one message tells of; each takes some 20 bytes, and a message holds at most 4 MiB
TEXT = 16_384  # characters of a prompt in one piece


def pieces(
    ids: Sequence[int], text: str, scores: Sequence[Logprobs] | None
) -> Iterator[generation_pb2.GenerationEvent]:
    """Yields a prompt, one piece at a time: a long one takes a while.

    scores: of its tokens from the second on; None if they are not to be told.
    """
    size = FULL // (1 + len(scores[0].top)) if scores else FULL
    for number in range(max(-(-len(ids) // size), -(-len(text) // TEXT))):
        first = min(number * size, len(ids))
        piece = ids[first : first + size]
        told = () if scores is None else [_score(scores, first + offset) for offset in range(len(piece))]
        yield generation_pb2.GenerationEvent(
            prompt=generation_pb2.Prompt(
                first_position=first,
                token_ids=piece,
                text=text[number * TEXT : (number + 1) * TEXT],
                logprobs=told,
            )
        )


def _score(scores: Sequence[Logprobs], position: int) -> generation_pb2.Logprobs:
    return events.logprobs(scores[position - 1]) if position else generation_pb2.Logprobs()
