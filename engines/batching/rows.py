"""Makes the rows of a step, for sequences whose blocks have room for them."""

from __future__ import annotations

from engines.batching.batch import PENDING, Row
from engines.batching.sequence import Sequence

SCORED_TOKENS = 128  # the most in one step of a prompt that is to be scored: each of them costs a row of logits
UNKNOWN = (PENDING,)


def decodes(sequence: Sequence) -> bool:
    """Tells whether its next row is for its last token, known or in flight; not if that is the last of all."""
    first = sequence.scheduled_count
    return len(sequence.ids) <= first + 1 < sequence.final_count and not sequence.is_parked


def chunk_end(sequence: Sequence, most: int) -> int:
    """Returns where the next chunk of its known tokens ends, if that may have so many."""
    first, known, prompt_count = sequence.scheduled_count, len(sequence.ids), len(sequence.work.prompt)
    end = min(known, first + most)
    if _scores(sequence):
        # The last token of the prompt scores nothing. It gives the next token, unless that is known.
        end = min(end, first + SCORED_TOKENS, prompt_count - (known > prompt_count))
    return end


def chunk(sequence: Sequence, end: int) -> Row:
    """Schedules its known tokens up to `end`. The last of all of them gives the next token."""
    first = sequence.scheduled_count
    draws = end == len(sequence.ids)
    logits_from = end - first - draws
    if _scores(sequence):
        logits_from = min(logits_from, max(0, sequence.scored_count - first))
    ids = tuple(sequence.ids[first:end])
    sequence.scheduled_count = end
    sequence.in_flight_count += 1
    return Row(sequence, ids, first, sequence.blocks, logits_from, 0, sequence.epoch, draws)


def guess_count(sequence: Sequence, most: int) -> int:
    """Returns how many tokens of its draft may be computed behind its last one."""
    known = len(sequence.ids)
    if sequence.in_flight_count:
        return 0  # they were guessed for another place
    return max(0, min(len(sequence.draft), most, sequence.final_count - known - 1))


def guess(sequence: Sequence, count: int) -> Row:
    """Schedules its last token and so many guesses, each of which gives a token if those before it are right."""
    first = sequence.scheduled_count
    ids = (*(sequence.ids[first:] or UNKNOWN), *sequence.draft[:count])
    sequence.draft = ()
    sequence.scheduled_count = first + 1 + count
    sequence.in_flight_count += 1
    return Row(sequence, ids, first, sequence.blocks, 0, count, sequence.epoch)


def _scores(sequence: Sequence) -> bool:
    return not sequence.is_scored and sequence.scheduled_count < len(sequence.work.prompt) - 1
