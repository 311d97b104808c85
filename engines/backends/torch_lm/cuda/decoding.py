"""Steps in which every sequence decodes, recorded once for each size of batch, and done again from then on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engines.backends.torch_lm.cuda.buckets import bucket_of
from engines.backends.torch_lm.cuda.machine import Machine, Recorded
from engines.backends.torch_lm.cuda.staging import Staged

Compute = Callable[[Staged], Tensor]  # returns the logits behind all tokens, [tokens, vocabulary]


class Decoding:
    """The recorded steps. What they read and write is always at the same place: the plan, and the logits."""

    def __init__(self, machine: Machine, compute: Compute) -> None:
        self._machine = machine
        self._compute = compute
        self._steps: dict[int, Recorded] = {}
        self._sizes: list[int] = []
        self._logits = torch.empty(0)

    def record(self, plans: Callable[[int], Staged], sizes: tuple[int, ...]) -> None:
        """Records steps of these sizes, smallest first. plans: brings a plan of so many rows to where all plans go.

        Raises RuntimeError if the model does what cannot be done again without the host.
        """
        for size in reversed(sizes):  # the largest first: what it takes is enough for the others
            staged = plans(size)
            if not len(self._logits):
                self._logits = torch.empty_like(self._compute(staged))
            self._steps[size] = self._machine.record(self._work(staged, self._logits[:size]))
        self._sizes = list(sizes)

    def size_for(self, rows: int) -> int | None:
        """Returns up to what size rows are filled; None if nothing was recorded that holds so many."""
        return bucket_of(rows, self._sizes)

    def step(self, size: int) -> Tensor:
        """Does what was recorded, for the plan that was brought last. Returns logits, valid until the next step."""
        self._steps[size]()
        return self._logits

    def _work(self, staged: Staged, logits: Tensor) -> Callable[[], None]:
        def work() -> None:
            logits.copy_(self._compute(staged))

        return work
