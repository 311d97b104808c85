"""Runs requests through a step loop, and keeps what each of them gave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.loop import Runner, StepLoop
from engines.model import Cause, End, Event, Sampling, Tokens, Work
from engines.text.decode import Decoder
from engines.text.transcript import Transcript
from roundhouse.kit.clock import Clock
from tests.support.paged_runner import PATIENCE_S

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


def work(key: str, prompt: Sequence[int] = (1, 2, 3), max_tokens: int = 8, sampling: Sampling = GREEDY) -> Work:
    """Returns a request without stops."""
    return Work(key, tuple(prompt), max_tokens, sampling)


def latin_transcript(stops: tuple[str, ...]) -> Transcript:
    """Writes each id as the character of that number."""
    return Transcript(Decoder(lambda ids: "".join(map(chr, ids))), stops)


@dataclass
class Output:
    """The events of one request, as they came."""

    events: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, event: Event) -> None:
        """Is the request's sink."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def has(self, count: int) -> None:
        """Waits until there are so many events."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events) >= count, timeout=PATIENCE_S)

    def end(self) -> End:
        """Waits for the last event, and returns it."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.events and isinstance(self.events[-1], End), timeout=PATIENCE_S)
            last = self.events[-1]
        assert isinstance(last, End)
        return last

    @property
    def has_ended(self) -> bool:
        """Tells whether the last event has come."""
        return bool(self.events) and isinstance(self.events[-1], End)

    @property
    def ids(self) -> list[int]:
        """The output so far; each position once, in order."""
        ids: list[int] = []
        for event in self.events:
            if isinstance(event, Tokens):
                assert event.first_position == len(ids)
                ids.extend(event.ids)
        return ids

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(event.text for event in self.events if isinstance(event, Tokens))


class Bench:
    """A step loop with its parts at hand."""

    def __init__(self, loop: StepLoop, pool: BlockPool) -> None:
        self.loop = loop
        self.pool = pool

    def submit(self, request: Work) -> Output:
        """Starts a request."""
        output = Output()
        self.loop.submit(request, output.take)
        return output

    def run(self, request: Work) -> Output:
        """Runs a request to its end."""
        output = self.submit(request)
        output.end()
        return output

    def cancel(self, request: Work, cause: Cause = Cause.CLIENT) -> None:
        """Cancels a request."""
        self.loop.cancel(request.key, cause)


@contextlib.contextmanager
def bench(
    runner: Runner,
    *,
    blocks: int,
    block_size: int,
    batch_size: int = 8,
    max_batched_tokens: int = 32,
    max_waiting: int = 1024,
    batch_interval_s: float = 0.0,
    transcript: Callable[[tuple[str, ...]], Transcript] = latin_transcript,
    clock: Clock | None = None,
    on_fault: Callable[[BaseException], None] | None = None,
) -> Iterator[Bench]:
    """Starts a step loop; at the end nothing may be held and nothing may have gone wrong with the loop."""
    faults: list[BaseException] = []
    pool = BlockPool(blocks, block_size)
    loop = StepLoop(
        runner,
        Scheduler(pool, batch_size=batch_size, max_batched_tokens=max_batched_tokens),
        transcript,
        batch_interval_s=batch_interval_s,
        max_waiting=max_waiting,
        clock=clock,
        on_fault=on_fault or faults.append,
    )
    loop.start()
    try:
        yield Bench(loop, pool)
    finally:
        has_ended = loop.stop(PATIENCE_S)
    assert has_ended
    assert not faults
    assert pool.free_count == pool.total
