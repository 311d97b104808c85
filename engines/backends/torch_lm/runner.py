"""Computes batches on a CPU, or wherever torch does, and answers what is asked of them. One thread at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engines.backends.torch_lm.cache import KvCache
from engines.backends.torch_lm.forward import Forward
from engines.backends.torch_lm.sampling.answers import Underway
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.backends.torch_lm.step import Step
from engines.batching.batch import PENDING, Ask, Batch, Draw
from engines.batching.sequence import Sequence as Tokens
from engines.loop.interfaces import OutOfMemory
from engines.model import Sampled

_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")  # in torch's words


@dataclass(frozen=True, slots=True)
class Logits:
    """What a forward pass gives, and whose it is."""

    numbers: Tensor  # [wanted, vocabulary]
    owners: Sequence[Tokens]  # of each row


class TorchRunner:
    """The step loop's `Runner`."""

    def __init__(self, forward: Forward, cache: KvCache, device: torch.device, *, depth: int = 0) -> None:
        """`depth` is 0, or 1 to be called as if answers came late, though they never do here."""
        self.depth = depth
        self.attended_count = 0  # layers that attended in the last step
        self._compute = forward.bind(cache)
        self._cache, self._device = cache, device
        self._sampler = Sampler()
        self._drawn: dict[Tokens, int] = {}  # since the last forward pass, if anybody may go on with them unseen

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Logits:
        """See `Runner`."""
        if self.depth:
            batch = self._filled(batch)
        with _memory_errors():
            step = Step(batch, self._cache, self._device)
            numbers = self._compute(step)
        self.attended_count = step.attended_count
        return Logits(numbers, [row.sequence for row in batch.rows for _ in range(row.logits_count)])

    @torch.inference_mode()
    def pick(self, logits: object, places: Sequence[int]) -> Logits:
        """See `Runner`."""
        assert isinstance(logits, Logits)
        numbers = logits.numbers[torch.tensor(places, dtype=torch.int64, device=self._device)]
        return Logits(numbers, [logits.owners[place] for place in places])

    def sample(self, logits: object, asks: Sequence[Ask | None]) -> Underway:
        """See `Runner`."""
        assert isinstance(logits, Logits)
        with _memory_errors():
            answers = self._sampler.sample(logits.numbers, asks)
        if self.depth:
            given = iter(answers.wait())
            for owner, ask in zip(logits.owners, asks, strict=True):
                answer = None if ask is None else next(given)
                if isinstance(ask, Draw) and isinstance(answer, Sampled):
                    self._drawn[owner] = answer.token
        return answers

    def _filled(self, batch: Batch) -> Batch:
        """Puts what was drawn in the step before in the place of PENDING."""
        drawn, self._drawn = self._drawn, {}
        rows = [
            # A token that could not be drawn is in nobody's output: its sequence has ended, and any id will do.
            replace(row, ids=(*row.ids[:-1], drawn.get(row.sequence, 0))) if row.ids[-1] == PENDING else row
            for row in batch.rows
        ]
        return Batch(tuple(rows))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns what is raised for want of memory into OutOfMemory."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        raise OutOfMemory(str(error).partition("\n")[0]) from error
