"""Runs requests through a step loop, and keeps what each of them gave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Scheduler
from engines.loop import Proposer, Runner, StepLoop
from engines.loop import Transcript as AnyTranscript
from engines.model import (
    Cause,
    Constraint,
    End,
    Event,
    FinishReason,
    Logprobs,
    PromptScored,
    Reread,
    Sampling,
    Tokens,
    Work,
)
from engines.text.decode import Decoder
from engines.text.transcript import Transcript
from roundhouse.kit.clock import Clock
from tests.support.paged_runner import PATIENCE_S, PagedRunner, reference

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


def work(
    key: str, prompt: Sequence[int] = (1, 2, 3), max_tokens: int = 8, sampling: Sampling = GREEDY, **fields: Any
) -> Work:
    """Returns a request without stops; `fields` are further ones of `Work`."""
    return Work(key, tuple(prompt), max_tokens, sampling, **fields)


def choices_of(request: Work, count: int) -> list[Work]:
    """Returns the sequences of a request for so many outputs."""
    return [replace(request, choice=choice) for choice in range(count)]


def latin_transcript(stops: tuple[str, ...]) -> Transcript:
    """Writes each id as the character of that number."""
    return Transcript(Decoder(lambda ids: "".join(map(chr, ids))), stops)


@dataclass
class Output:
    """The events of one output, as they came."""

    given_count: int = 0  # ids that it had already
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

    def has_or_ended(self, count: int) -> None:
        """Waits until there are so many events, or no more to come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events) >= count or self.has_ended, timeout=PATIENCE_S)

    def end(self) -> End:
        """Waits for the last event, and returns it."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.has_ended, timeout=PATIENCE_S)
            last = self.events[-1]
        assert isinstance(last, End)
        return last

    @property
    def has_ended(self) -> bool:
        """Tells whether the last event has come."""
        return bool(self.events) and isinstance(self.events[-1], End)

    @property
    def tokens(self) -> list[Tokens]:
        """The events that tell of tokens."""
        return [event for event in self.events if isinstance(event, Tokens)]

    @property
    def ids(self) -> list[int]:
        """The output so far, without what it had already; each position once, in order."""
        ids: list[int] = []
        for event in self.tokens:
            assert event.first_position == self.given_count + len(ids)
            ids.extend(event.ids)
        return ids

    @property
    def given_text(self) -> str:
        """The text of what it had already; it is told once, before all tokens."""
        told = [number for number, event in enumerate(self.events) if isinstance(event, Reread)]
        first = next((number for number, event in enumerate(self.events) if isinstance(event, Tokens | End)), None)
        assert len(told) == bool(self.given_count and first is not None)
        assert all(first is not None and number < first for number in told)
        return "".join(text for event in self.events if isinstance(event, Reread) for text in event.texts)

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(text for event in self.tokens for text in event.texts)

    @property
    def logprobs(self) -> list[Logprobs]:
        """How likely the tokens were."""
        return [each for event in self.tokens for each in event.logprobs]

    @property
    def prompt_logprobs(self) -> tuple[Logprobs, ...]:
        """How likely the prompt was; it is told once, before all tokens."""
        [scored] = [event for event in self.events if isinstance(event, PromptScored)]
        assert self.events[0] is scored
        return scored.logprobs


class Bench:
    """A step loop with its parts at hand."""

    def __init__(self, loop: StepLoop, pool: BlockPool, proposer: Proposer | None) -> None:
        self.loop = loop
        self.pool = pool
        self.proposer = proposer

    def submit(self, request: Work) -> Output:
        """Starts a request for one output."""
        [output] = self.submit_all([request])
        return output

    def submit_all(self, choices: Sequence[Work]) -> list[Output]:
        """Starts a request for several outputs, which `choices_of` makes."""
        outputs = {each.choice: Output(len(each.output)) for each in choices}
        self.loop.submit(choices, lambda event: outputs[event.choice].take(event))
        return list(outputs.values())

    def run(self, request: Work) -> Output:
        """Runs a request for one output to its end."""
        output = self.submit(request)
        output.end()
        return output

    def run_all(self, choices: Sequence[Work]) -> list[Output]:
        """Runs a request for several outputs to its end."""
        outputs = self.submit_all(choices)
        for output in outputs:
            output.end()
        return outputs

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
    shares_prefixes: bool = True,
    proposer: Proposer | None = None,
    draft_count: int = 4,
    transcript: Callable[[tuple[str, ...]], AnyTranscript] = latin_transcript,
    clock: Clock | None = None,
    on_fault: Callable[[BaseException], None] | None = None,
) -> Iterator[Bench]:
    """Starts a step loop; at the end nothing may be held and nothing may have gone wrong with the loop."""
    faults: list[BaseException] = []
    pool = BlockPool(blocks, block_size)
    loop = StepLoop(
        runner,
        Scheduler(pool, batch_size=batch_size, max_batched_tokens=max_batched_tokens, shares_prefixes=shares_prefixes),
        transcript,
        batch_interval_s=batch_interval_s,
        max_waiting=max_waiting,
        proposer=proposer,
        draft_count=draft_count,
        clock=clock,
        on_fault=on_fault or faults.append,
    )
    loop.start()
    try:
        yield Bench(loop, pool, proposer)
    finally:
        has_ended = loop.stop(PATIENCE_S)
    assert has_ended
    assert not faults
    assert (pool.free_count, pool.used_count) == (pool.total, 0)
    if isinstance(runner, PagedRunner):
        assert not runner.violations, runner.violations


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request for one output is to give with a `PagedRunner` and a `latin_transcript`."""

    ids: list[int]  # without what it had already
    text: str
    reason: FinishReason


def expected(request: Work, constraint: Constraint | None = None) -> Expected:
    """Returns what a request gives, by other means than the loop. `constraint`: one like its own that is fresh."""
    ids = reference(request, constraint)
    given = len(request.output)
    text = "".join(map(chr, ids))
    shown = given - max((_held(text[:given], stop) for stop in request.stop), default=0)
    for end in range(given, len(ids) + 1):
        is_stop_token = end > 0 and ids[end - 1] in request.stop_token_ids
        if is_stop_token:
            is_shown = end > given and request.include_stop
            return Expected(ids[given:end], text[shown : end - 1 + is_shown], FinishReason.STOP_TOKEN)
        matched = max((stop for stop in request.stop if text[:end].endswith(stop)), key=len, default="")
        if matched:
            last = end if request.include_stop else end - len(matched)
            return Expected(ids[given:end], text[shown:last] if end > given else "", FinishReason.STOP_STRING)
    return Expected(ids[given:], text[shown:] if len(ids) > given else "", FinishReason.LENGTH)


def _held(text: str, stop: str) -> int:
    return max(count for count in range(len(stop)) if text.endswith(stop[:count]))
