"""A runner in plain Python that keeps tokens in paged blocks, and gives tokens that depend on all that it reads there.

If a block were shared by mistake, or written past its end or while somebody shares it, other tokens would come out; and
it notes such things. A test can hold its steps, and have it fail. With depth 1 it is a step behind, as devices are.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from engines.batching.batch import PENDING, Ask, Batch, Draw, Row, Score
from engines.batching.sequence import Sequence as Ids
from engines.model import Constraint, Logprobs, Sampled, TokenLogprob, Work

VOCABULARY_SIZE = 256
PATIENCE_S = 20.0  # only a test that fails waits so long

Place = tuple[int, ...] | Exception  # the logits behind an id are all ids up to it, or what is wrong with them


def reference(work: Work, constraint: Constraint | None = None) -> list[int]:
    """Returns the output that the runner gives for a request alone, without blocks, and without looking for its end."""
    ids = [*work.prompt, *work.output]
    if constraint is not None:
        for token in work.output:
            constraint.accept(token)
    for position in range(len(work.output), work.max_tokens):
        mask = None if constraint is None else constraint.mask()
        draw = Draw(work.sampling, position, work.choice, end_ids=work.stop_token_ids, mask=mask)
        ids.append(token_of(tuple(ids), draw))
        if constraint is not None:
            constraint.accept(ids[-1])
    return ids[len(work.prompt) :]


def token_of(ids: tuple[int, ...], draw: Draw) -> int:
    """Returns the token that follows these ids."""
    salt = (draw.sampling.seed, draw.choice, draw.position) if draw.sampling.temperature > 0 else ()
    token = _digest(ids, salt)[0]
    while not _is_allowed(token, draw):
        token = (token + 1) % VOCABULARY_SIZE
    return token


def logprobs_of(ids: tuple[int, ...], token: int, top: int) -> Logprobs:
    """Returns how likely a token is behind these ids, and those that are likelier."""
    chosen = TokenLogprob(token, -float(_digest(ids, (token,))[0]), token + 1)
    return Logprobs(chosen, tuple(TokenLogprob(rank, -float(rank), rank + 1) for rank in range(top)))


@dataclass(frozen=True, slots=True)
class Logits:
    """What `forward` gives. Valid until the next step, unless they were picked."""

    places: Sequence[Place]
    batch: Batch | None
    error: Exception | None = None  # what will have gone wrong with the step


class PagedRunner:
    """Lets every step pass, unless it is held."""

    def __init__(self, *, blocks: int, block_size: int, depth: int = 0) -> None:
        self.depth = depth
        self.fail_forward: Callable[[Batch], Exception | None] = lambda _: None
        self.fails_late = False  # while its answers are waited for; that is how a device fails
        self.fail_row: Callable[[Row], Exception | None] = lambda _: None
        self.batches: list[Batch] = []
        self.violations: list[str] = []
        self._slots: list[int | None] = [None] * (blocks * block_size)
        self._block_size = block_size
        self._sequences: dict[Ids, None] = {}  # those that may hold blocks
        self._drawn: dict[Ids, int] = {}  # in the step before
        self._last: Batch | None = None
        self._is_lost = False  # a step has failed, and nobody knows yet: what comes behind it is nonsense
        self._changed = threading.Condition()
        self._permit_count: int | None = None
        self._entered_count = 0

    def hold(self) -> None:
        """Lets no step pass until `step` or `go`."""
        with self._changed:
            self._permit_count = 0

    def step(self, count: int = 1) -> None:
        """Lets so many more steps pass."""
        with self._changed:
            assert self._permit_count is not None
            self._permit_count += count
            self._changed.notify_all()

    def go(self) -> None:
        """Lets every step pass."""
        with self._changed:
            self._permit_count = None
            self._changed.notify_all()

    def entered(self, count: int) -> None:
        """Waits until so many steps have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._entered_count >= count, timeout=PATIENCE_S)

    def forward(self, batch: Batch) -> Logits:
        """Writes the ids, and reads them back: all that a row's blocks hold for it."""
        with self._changed:
            self._entered_count += 1
            self._changed.notify_all()
        if not self.depth:
            self.pass_gate()
        self.batches.append(batch)
        self._last = batch
        error = self.fail_forward(batch)
        if error is not None and not self.fails_late:
            raise error
        if error is not None:
            self._is_lost = True
            return Logits([error] * batch.logits_count, batch, error)
        if self._check(batch):
            for row in batch.rows:
                self._write(row)
        return Logits([place for row in batch.rows for place in self._read(row)], batch)

    def pick(self, logits: object, places: Sequence[int]) -> Logits:
        """Returns some of the logits."""
        assert isinstance(logits, Logits)
        return Logits([logits.places[place] for place in places], None)

    def sample(self, logits: object, asks: Sequence[Ask | None]) -> PagedAnswers:
        """Answers what is asked."""
        assert isinstance(logits, Logits)
        if len(asks) != len(logits.places):
            self.violations.append(f"{len(asks)} asks for {len(logits.places)} logits")
        if logits.batch is not None and logits.batch is not self._last:
            self.violations.append("logits of a step before were used")
        pairs = zip(logits.places, asks, strict=True)
        answers = [self._answer(place, ask) for place, ask in pairs if ask is not None]
        if logits.batch is not None:
            self._keep_drawn(logits.batch, asks, answers)
        return PagedAnswers(self, answers, logits.error, has_gate=self.depth > 0 and logits.batch is not None)

    def tell(self, error: Exception) -> NoReturn:
        """Raises what went wrong with a step."""
        self._is_lost = False
        raise error

    def pass_gate(self) -> None:
        """Waits for a permit."""
        with self._changed:
            self._changed.wait_for(lambda: self._permit_count is None or self._permit_count > 0)
            if self._permit_count is not None:
                self._permit_count -= 1

    def _check(self, batch: Batch) -> bool:
        """Notes what is wrong with a batch; tells whether it can be computed."""
        before = len(self.violations)
        self._sequences = {each: None for each in self._sequences if each.blocks}
        self._sequences.update((row.sequence, None) for row in batch.rows)
        holders = Counter(block for sequence in self._sequences for block in sequence.blocks)
        if len({row.sequence for row in batch.rows}) < len(batch.rows):
            self.violations.append("a sequence has two rows")
        for row in batch.rows:
            end = row.first_position + len(row.ids)
            first, last = row.first_position // self._block_size, (end - 1) // self._block_size
            if row.epoch != row.sequence.epoch or list(row.blocks) != list(row.sequence.blocks):
                self.violations.append("blocks that were lost are used")
            elif last >= len(row.blocks):
                self.violations.append("a row is longer than its blocks")
            elif any(holders[block] > 1 for block in row.blocks[first : last + 1]):
                self.violations.append("a block is written while somebody shares it")
        return len(self.violations) == before

    def _write(self, row: Row) -> None:
        for offset, token in enumerate(row.ids):
            known = self._drawn.get(row.sequence, PENDING) if token == PENDING else token
            if known == PENDING and not self._is_lost:
                self.violations.append("an id is pending that the step before did not give")
            self._slots[self._slot(row, row.first_position + offset)] = known

    def _read(self, row: Row) -> list[Place]:
        end = row.first_position + len(row.ids)
        if (end - 1) // self._block_size >= len(row.blocks):
            return [()] * row.logits_count
        held = tuple(self._slots[self._slot(row, position)] for position in range(end))
        is_held = list(held[: row.first_position]) == row.sequence.ids[: row.first_position]
        if not is_held and not self._is_lost:
            self.violations.append("a block holds what its sequence did not say")
        places: list[Place] = [
            tuple(-2 if each is None else each for each in held[: row.first_position + offset + 1])
            for offset in range(row.logits_from, len(row.ids))
        ]
        error = self.fail_row(row)
        return places if error is None else [error] * len(places)

    def _slot(self, row: Row, position: int) -> int:
        return row.blocks[position // self._block_size] * self._block_size + position % self._block_size

    def _answer(self, place: Place, ask: Ask) -> Sampled | Logprobs | Exception:
        if isinstance(place, Exception):
            return place
        if isinstance(ask, Score):
            return logprobs_of(place, ask.token, ask.top)
        if tuple(ask.ids) != place or ask.position != len(place) - ask.prompt_count:
            self.violations.append("a token is drawn behind other ids than those that were computed")
        token = token_of(place, ask)
        return Sampled(token, None if ask.top is None else logprobs_of(place, token, ask.top))

    def _keep_drawn(self, batch: Batch, asks: Sequence[Ask | None], answers: Sequence[object]) -> None:
        self._drawn = {}
        given = iter(answers)
        told = iter([None if ask is None else next(given) for ask in asks])
        for row in batch.rows:
            mine = [next(told) for _ in range(row.logits_count)]
            if mine and mine[-1] is not None:  # where it went wrong, the next step computes nonsense
                self._drawn[row.sequence] = mine[-1].token if isinstance(mine[-1], Sampled) else 0


class PagedAnswers:
    """Answers that are there, but for the permit."""

    def __init__(
        self,
        runner: PagedRunner,
        answers: Sequence[Sampled | Logprobs | Exception],
        error: Exception | None,
        *,
        has_gate: bool,
    ) -> None:
        self._runner = runner
        self._answers = answers
        self._error = error
        self._has_gate = has_gate

    def wait(self) -> Sequence[Sampled | Logprobs | Exception]:
        """Returns them."""
        if self._has_gate:
            self._runner.pass_gate()
        if self._error is not None:
            self._runner.tell(self._error)
        return self._answers


def _is_allowed(token: int, draw: Draw) -> bool:
    if token in draw.end_ids and draw.position < draw.sampling.min_tokens:
        return False
    return draw.mask is None or bool(draw.mask[token // 8] >> (token % 8) & 1)


def _digest(ids: tuple[int, ...], salt: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(repr((ids, salt)).encode(), digest_size=8).digest()
