"""What the reader of one request has seen, over all calls that told of it: everything once, in order. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from roundhouse.client.told import Told
from roundhouse.v1 import generation_pb2, receipt_pb2

Event = generation_pb2.GenerationEvent

_EXACT = generation_pb2.EXACTNESS_EXACT


class Seen:
    """Takes every event that comes, and says what is new in it."""

    def __init__(
        self,
        *,
        after: Mapping[int, int] | None = None,
        resumed: generation_pb2.Resume | None = None,
        may_differ: bool = False,
    ) -> None:
        """after: tokens of each choice that were told elsewhere. resumed: output that the request goes on behind.

        may_differ: whether engines may go on with it that do not give the same, or it is not known if they may.
        """
        self.started: generation_pb2.Started | None = None
        self.location = ""
        self.resumes: list[generation_pb2.Resumed] = []
        self.finishes: dict[int, generation_pb2.Finished] = {}
        self.usage: generation_pb2.Usage | None = None
        self.has_output = False  # which comes when the prompt has been told
        self._prompt = Told("the prompt", is_chained=False)
        self._choices: dict[int, Told] = {}
        for choice, count in (after or {}).items():
            self._choices[choice] = Told(f"choice {choice}", count=count)
        self._resumed, self._may_differ = resumed, may_differ
        for each in () if resumed is None else resumed.choices:
            self._choices[each.choice] = Told(f"choice {each.choice}", ids=each.output_token_ids.ids)
        self._attempt = 0
        self._fingerprint = ""

    @property
    def is_complete(self) -> bool:
        """Tells whether nothing is missing: `usage` is the last event."""
        return self.usage is not None

    def positions(self) -> dict[int, int]:
        """Returns how far each choice was told, which is the position of the token that comes next."""
        return {choice: told.count for choice, told in sorted(self._choices.items())}

    def after(self) -> list[receipt_pb2.ChoicePosition]:
        """Returns the same as the contract has it."""
        return [
            receipt_pb2.ChoicePosition(choice=choice, output_token_count=count)
            for choice, count in self.positions().items()
        ]

    def resume(self) -> generation_pb2.Resume:
        """Returns what it takes to go on behind all that was told, for a request that has started."""
        assert self.started is not None
        before = self._resumed
        return generation_pb2.Resume(
            prompt_token_ids=before.prompt_token_ids if before is not None and before.prompt_token_ids.ids else None,
            seed=self.started.seed,
            # No fingerprint stands for output that several engines of different kinds have made.
            fingerprint=self._fingerprint if self._is_exact() else "",
            tokenizer_fingerprint=self.started.tokenizer_fingerprint,
            choices=[
                generation_pb2.ResumeChoice(choice=choice, output_token_ids={"ids": told.ids})
                for choice, told in sorted(self._choices.items())
                if told.count
            ],
        )

    def new(self, event: Event) -> Event | None:
        """Returns what of an event is new. Raises OutOfOrder for a gap, and TokensDiffer at the end of a choice."""
        match event.WhichOneof("event"):
            case "started":
                return self._start(event)
            case "prompt":
                prompt = event.prompt
                piece = self._prompt.take(prompt)
                return event if piece is prompt else None if piece is None else Event(prompt=piece)
            case "delta":
                delta = event.delta
                more = self._told(delta.choice).take(delta)
                self.has_output = True
                return event if more is delta else None if more is None else Event(delta=more)
            case "resumed":
                return self._resume(event.resumed)
            case "finished":
                return self._finish(event)
            case "usage":
                if self.usage is not None:
                    return None
                self.usage = event.usage
        return event

    def _told(self, choice: int) -> Told:
        return self._choices.setdefault(choice, Told(f"choice {choice}"))

    def _start(self, event: Event) -> Event | None:
        started = event.started
        for each in (self._prompt, *self._choices.values()):
            each.begin_again()
        if self.started is None:
            self.started = started
            self.location, self._attempt = started.location, started.attempt
            self._fingerprint = started.fingerprint
            return event
        # A reader that comes back is not told that others went on meanwhile: it sees that from where it finds them. Not
        # whether equal engines give the same in any company; those that do not may go on only where that was allowed.
        is_same = bool(started.fingerprint) and started.fingerprint == self._fingerprint
        is_exact = is_same and not self._may_differ and self._is_exact()
        resumed = generation_pb2.Resumed(
            attempt=max(started.attempt, self._attempt + 1),
            location=started.location,
            replica=started.replica,
            fingerprint=started.fingerprint,
            exactness=_EXACT if is_exact else generation_pb2.EXACTNESS_APPROXIMATE,
            reason=generation_pb2.RESUME_REASON_ENGINE_LOST,
            positions=self.after(),
        )
        return self._resume(resumed)

    def _resume(self, resumed: generation_pb2.Resumed) -> Event | None:
        if resumed.location == self.location:
            return None
        self.location, self._attempt = resumed.location, resumed.attempt
        self._fingerprint = resumed.fingerprint
        self.resumes.append(resumed)
        return Event(resumed=resumed)

    def _finish(self, event: Event) -> Event | None:
        choice = event.finished.choice
        if choice in self.finishes:
            return None
        self._told(choice).check(event.finished.token_hash)
        self.finishes[choice] = event.finished
        return event

    def _is_exact(self) -> bool:
        assert self.started is not None
        goes_on = self._resumed is not None and self._resumed.choices
        is_first_exact = not goes_on or self._resumed.fingerprint == self.started.fingerprint  # type: ignore[union-attr]
        return is_first_exact and all(each.exactness == _EXACT for each in self.resumes)
