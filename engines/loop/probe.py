"""Finds out whether anything can be computed at all, when every request fails."""

from __future__ import annotations

from engines.batching.batch import Batch, Draw, Row
from engines.batching.blocks import BlockPool
from engines.batching.sequence import Sequence
from engines.loop.interfaces import Runner
from engines.loop.meter import Meter
from engines.model import Sampling, Work
from roundhouse.kit.clock import Clock

_GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


class Probe:
    """Belongs to the step thread."""

    def __init__(self, runner: Runner, pool: BlockPool, meter: Meter, clock: Clock) -> None:
        self._runner = runner
        self._pool = pool
        self._meter = meter
        self._clock = clock

    def take(self) -> None:
        """Computes one token that is nobody's, if a block is free. Raises what goes wrong: it is no request's fault."""
        if not self._pool.free_count:
            return
        sequence = Sequence(Work("", (0,), 1, _GREEDY))
        sequence.blocks = [self._pool.allocate()]
        self._meter.begin(self._clock.monotonic())
        try:
            logits = self._runner.forward(Batch((Row(sequence, (0,), 0, sequence.blocks, 0),)))
            self._runner.sample(logits, [Draw(_GREEDY, 0, ids=sequence.ids, prompt_count=1)]).wait()
        finally:
            self._meter.end(self._clock.monotonic())
            self._pool.release(sequence.lose_blocks())
