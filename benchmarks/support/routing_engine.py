"""An engine that computes nothing: it batches as ours does, and its steps take as long as a formula says. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.support.routing_traces import BLOCK, Arrival

# About what a model of 8 billion weights takes on one GPU of today.
STEP_S, DECODE_S, PREFILL_S, CONTEXT_S = 0.008, 60e-6, 25e-6, 15e-9  # a step; for each token and each token of context
BATCH_SIZE, STEP_TOKENS = 64, 2048
CACHE_TOKENS = 256_000  # of KV cache


@dataclass(slots=True, eq=False)
class Running:
    """A request in an engine."""

    arrival: Arrival
    on_tokens: Callable[[int, float], None]  # told how many came, and when; 0: it has ended
    left: int = 0  # of its prompt, to be computed
    done: int = 0  # output tokens
    cached: int = 0


@dataclass
class SimulatedEngine:
    """One engine, stepped from outside. speed: 1 is that of the formula."""

    speed: float = 1.0
    cache_tokens: int = CACHE_TOKENS
    waiting: deque[Running] = field(default_factory=deque)
    running: list[Running] = field(default_factory=list)
    held: int = 0  # tokens that requests hold, or will
    found_tokens: int = 0  # of prompts that joined, in the cache
    prompt_tokens: int = 0
    _cached: OrderedDict[int, None] = field(default_factory=OrderedDict)  # blocks, the last used last
    _step: list[tuple[Running, int]] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Tells whether there is nothing to compute."""
        return not (self.waiting or self.running)

    @property
    def sequence_count(self) -> int:
        """Counts those that run or wait."""
        return len(self.waiting) + len(self.running)

    def add(self, request: Running) -> None:
        """Takes a request."""
        self.waiting.append(request)

    def begin(self) -> float:
        """Begins a step; returns how long it takes."""
        decoding = [each for each in self.running if not each.left]
        self._step = [(each, 1) for each in decoding]
        spare = STEP_TOKENS - len(decoding)
        for each in self.running:
            if each.left and spare > 0:
                spare -= self._chunk(each, spare)
        while spare > 0 and self.waiting and len(self.running) < BATCH_SIZE and self._join():
            spare -= self._chunk(self.running[-1], spare)
        prefilled = STEP_TOKENS - len(decoding) - spare
        context = sum(each.arrival.prompt_token_count + each.done for each in decoding)
        took_s = STEP_S + DECODE_S * len(decoding) + PREFILL_S * prefilled + CONTEXT_S * context
        return took_s / self.speed

    def end(self, now_s: float) -> None:
        """Ends the step."""
        for request, count in self._step:
            request.left -= min(request.left, count)
            if not request.left:
                request.done += 1
                request.on_tokens(1, now_s)
                if request.done >= request.arrival.output_token_count:
                    self._leave(request)
                    request.on_tokens(0, now_s)

    def _chunk(self, request: Running, most: int) -> int:
        count = min(most, request.left)
        self._step.append((request, count))
        return count

    def _join(self) -> bool:
        request = self.waiting[0]
        arrival = request.arrival
        tokens = arrival.prompt_token_count + arrival.output_token_count
        if self.running and self.held + tokens > self.cache_tokens:
            return False
        self.waiting.popleft()
        found = 0
        for block in arrival.blocks:
            if block not in self._cached:
                break
            self._cached.move_to_end(block)
            found += BLOCK
        request.cached = min(found, arrival.prompt_token_count - 1)
        request.left = arrival.prompt_token_count - request.cached
        self.found_tokens += request.cached
        self.prompt_tokens += arrival.prompt_token_count
        self.held += tokens
        self.running.append(request)
        self._trim()
        return True

    def _leave(self, request: Running) -> None:
        self.running.remove(request)
        self.held -= request.arrival.prompt_token_count + request.arrival.output_token_count
        for block in reversed(request.arrival.blocks):  # the first are forgotten last
            self._cached[block] = None
            self._cached.move_to_end(block)
        self._trim()

    def _trim(self) -> None:
        room = max(0, self.cache_tokens - self.held) // BLOCK
        while len(self._cached) > room:
            self._cached.popitem(last=False)
