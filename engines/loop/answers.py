"""What is asked of a row's logits, and what the answers mean for its sequence."""

from __future__ import annotations

from collections.abc import Sequence

from engines.batching.batch import Ask, Row, Score
from engines.loop.endings import Ending, failed
from engines.loop.live import Live
from engines.model import Logprobs, Sampled

Answer = Sampled | Logprobs | Exception


def asks_of(live: Live, row: Row, mask: bytes | None = None) -> list[Ask | None]:
    """Returns what is asked of each of the row's logits.

    Behind a token of the prompt: how likely the next one was. Behind the last token: the next one, and behind each
    guess the one that would follow it, all at their own places in the output.
    """
    prompt_count, ids = live.prompt_count, live.sequence.ids
    first = row.first_position + row.logits_from  # of the tokens behind which logits are wanted
    end = row.first_position + len(row.ids)
    if end - first == 1 and end >= prompt_count:  # as nearly always
        return [live.draw(end - prompt_count, ids, mask)] if row.draws else [None]
    asks: list[Ask | None] = []
    known_count = len(ids)
    guessed = [*ids, *row.ids[len(row.ids) - row.draft_count :]] if row.draft_count else ids
    for position in range(first + 1, end + 1):  # of the token that is asked for
        if position < prompt_count:
            asks.append(Score(ids[position], live.work.prompt_logprobs or 0))
        elif position < known_count or not row.draws:
            asks.append(None)
        else:
            asks.append(live.draw(position - prompt_count, guessed[:position], mask))
    return asks


def accepted(live: Live, row: Row, answers: Sequence[Answer]) -> tuple[list[Sampled], Ending | None]:
    """Returns the tokens that the answers add to the output, and why it ends with the last of them, if it does.

    A guess that is what was drawn in its place makes the next answer true as well: that one was drawn behind it.
    """
    sampled: list[Sampled] = []
    position = live.sequence.output_count
    guesses = row.ids[len(row.ids) - row.draft_count :] if row.draft_count else ()
    for answer in answers:
        if isinstance(answer, Sampled):
            count = len(sampled)
            sampled.append(answer)
            ending = live.ending_at(answer.token, position + count)
            if ending is not None:
                return sampled, ending
            if count == len(guesses) or guesses[count] != answer.token:
                break
        elif isinstance(answer, Exception):
            return sampled, failed(answer)
        else:
            live.scores.append(answer)
    return sampled, None
