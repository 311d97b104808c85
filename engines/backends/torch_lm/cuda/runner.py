"""Computes batches on a GPU, one step ahead of its answers: nothing here waits for what was asked of the GPU last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.backends.torch_lm.cuda.buckets import buckets
from engines.backends.torch_lm.cuda.cache import PagedCache
from engines.backends.torch_lm.cuda.decoding import Decoding
from engines.backends.torch_lm.cuda.drawn import Drawn
from engines.backends.torch_lm.cuda.limits import Limits, largest_batch
from engines.backends.torch_lm.cuda.machine import Machine, Mark
from engines.backends.torch_lm.cuda.plan import Planner, decodes
from engines.backends.torch_lm.cuda.staging import Staged, Staging
from engines.backends.torch_lm.cuda.step import CudaStep
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.backends.torch_lm.sampling.upload import upload
from engines.batching import sequence as batching
from engines.batching.batch import Ask, Batch, Draw
from engines.loop.interfaces import Answers, OutOfMemory

Compute = Callable[[CudaStep], Tensor]  # returns the logits that the step wants, [wanted, vocabulary]


@dataclass(frozen=True, slots=True)
class Logits:
    """Logits, perhaps not computed yet, and whose they are."""

    values: Tensor  # [rows, vocabulary]
    sequences: Sequence[batching.Sequence]  # of the first rows; the others only fill up


class CudaRunner:
    """The step loop's `Runner`.

    All work is put on one stream, where it is done in order. So a step may write over what the one before has read, and
    the blocks of a cancelled sequence may be given away while a step under way still writes to them.
    """

    depth = 1

    def __init__(
        self, compute: Compute, cache: PagedCache, machine: Machine, limits: Limits, sampler: Sampler | None = None
    ) -> None:
        """`compute` attends over `cache`."""
        self._compute = compute
        self._cache = cache
        self._limits = limits
        self._sizes = buckets(limits.rows)
        tokens, rows = max(limits.tokens, self._sizes[-1]), max(limits.rows, self._sizes[-1])
        self._planner = Planner(cache.block_size, cache.trash_block)
        width = -(-limits.context // cache.block_size)
        self._staging = Staging(machine, tokens=tokens, sequences=rows, width=width)
        self._machine = machine
        self._drawn = Drawn(tokens + 2 * rows, machine.device)
        self._all = torch.arange(self._sizes[-1], device=machine.device)
        self._decoding = Decoding(machine, self._decode)
        self._sampler = sampler or Sampler()
        self.attended_count = 0  # layers that attended in the last step that was not recorded

    @torch.inference_mode()
    def warm_up(self, *, records: bool = True) -> str | None:
        """Computes the largest step, so that all is compiled and memory is known to be enough. Raises OutOfMemory.

        records: whether steps in which all sequences decode are recorded, for good. Returns why they could not be.
        """
        with _memory():
            self._mixed(
                self._staging.bring(self._planner.mixed(largest_batch(self._limits, self._cache.trash_block), {}))
            )
            for size in self._sizes:
                self._decode(self._empty(size))
            if records:
                try:
                    self._decoding.record(self._empty, self._sizes)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    return str(error).partition("\n")[0]
        return None

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Logits:
        """See `Runner`. The logits are valid until the next step begins."""
        size = self._decoding.size_for(len(batch.rows)) if decodes(batch) else None
        with _memory():
            if size is None:
                values = self._mixed(self._staging.bring(self._planner.mixed(batch, self._drawn.places)))
            else:
                self._staging.bring(self._planner.decode(batch, self._drawn.places, size))
                values = self._decoding.step(size)
        self._drawn.places = {}
        return Logits(values, [row.sequence for row in batch.rows for _ in range(row.logits_count)])

    @torch.inference_mode()
    def pick(self, logits: object, places: Sequence[int]) -> Logits:
        """See `Runner`."""
        assert isinstance(logits, Logits)
        with _memory():
            which = upload(np.array(places, np.int64), logits.values.device)
            return Logits(logits.values.index_select(0, which), [logits.sequences[place] for place in places])

    @torch.inference_mode()
    def sample(self, logits: object, asks: Sequence[Ask | None]) -> Answers:
        """See `Runner`. Raises OutOfMemory."""
        assert isinstance(logits, Logits)
        assert len(asks) == len(logits.sequences)
        if all(ask is None for ask in asks):
            return _Nothing(self._machine.mark())
        with _memory():
            answers = self._sampler.sample(logits.values[: len(asks)], asks)
        pairs = enumerate(zip(asks, logits.sequences, strict=True))
        self._drawn.take(answers.tokens, [(index, whose) for index, (ask, whose) in pairs if isinstance(ask, Draw)])
        return answers

    def _empty(self, size: int) -> Staged:
        return self._staging.bring(self._planner.decode(Batch(()), {}, size))

    def _decode(self, staged: Staged) -> Tensor:
        return self._compute(self._step(staged, self._all[: len(staged.ids)]))

    def _mixed(self, staged: Staged) -> Tensor:
        step = self._step(staged, staged.wanted.long())
        logits = self._compute(step)
        self.attended_count = step.attended_count
        return logits

    def _step(self, staged: Staged, wanted: Tensor) -> CudaStep:
        ids, positions = self._drawn.resolved(staged.ids), staged.positions.long()
        return CudaStep(ids[None], positions[None], wanted, staged.tables, self._cache, self._limits.context - 1)


class _Nothing:
    """What a step gives that was asked nothing, when it ends: without waiting, more than two would be under way."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark

    def wait(self) -> list[Exception]:
        """Waits for the end of the step."""
        self._mark.synchronize()
        return []


@contextmanager
def _memory() -> Iterator[None]:
    """Turns an error of torch about memory into one that the step loop knows."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(str(error).partition("\n")[0]) from error
