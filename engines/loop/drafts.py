"""Asks a proposer how outputs go on, and keeps what it says harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from engines.loop.interfaces import Proposer
from engines.loop.live import Live


class Drafts:
    """Belongs to the step thread. A proposer that fails is not asked again: nothing depends on it."""

    def __init__(self, proposer: Proposer | None, most: int, on_fault: Callable[[BaseException], None]) -> None:
        """`most`: ids that are guessed for a sequence in one step."""
        self._proposer = proposer
        self._most = most
        self._on_fault = on_fault

    def propose(self, lives: Iterable[Live]) -> None:
        """Gives each sequence that has more than one token to come, and no grammar, a draft for its next step."""
        if self._proposer is None:
            return
        guessed = [live for live in lives if _can_guess(live)]
        try:
            drafts = self._proposer.propose([(live.name, live.sequence.ids) for live in guessed], self._most)
            for live, draft in zip(guessed, drafts, strict=True):
                live.sequence.draft = self._harmless(live, draft)
        except Exception as error:  # noqa: BLE001 - somebody is told
            self._give_up(error)

    def forget(self, live: Live) -> None:
        """Says that a sequence has ended."""
        if self._proposer is not None:
            try:
                self._proposer.forget(live.name)
            except Exception as error:  # noqa: BLE001 - somebody is told
                self._give_up(error)

    def _harmless(self, live: Live, draft: Sequence[int]) -> tuple[int, ...]:
        left = live.work.max_tokens - live.sequence.output_count - 1  # the last token is never one that was guessed
        ids = tuple(draft[: min(self._most, left)])
        return ids if all(each >= 0 for each in ids) else ()

    def _give_up(self, error: BaseException) -> None:
        self._proposer = None
        self._on_fault(error)


def _can_guess(live: Live) -> bool:
    sequence = live.sequence
    return (
        not live.is_over
        and live.constraint is None
        and bool(sequence.blocks)
        and sequence.computed_count == len(sequence.ids) - 1
    )
