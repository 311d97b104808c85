"""Replays a trace against simulated engines, through the router that gateways have. Time is simulated."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.support.metrics import percentile
from benchmarks.support.routing_engine import Running, SimulatedEngine
from benchmarks.support.routing_traces import BLOCK, Arrival
from controlplane.gateway.router import Flight, Router
from controlplane.gateway.routing.asked import FRONT_TOKENS, Asked
from controlplane.model import NodeId, ReplicaUid, Route, Routes
from controlplane.routing_policies import RoutingPolicy

NAME = "sim"
REPORT_S, DELAY_S = 1.0, 0.3  # engines tell their load so often, and gateways know it so much later
ESTIMATE_ERROR = 0.25  # of a gateway that does not tokenize


@dataclass(frozen=True, slots=True)
class Way:
    """A way of routing. is_blind: prompts and sessions are not looked at."""

    name: str
    policy: RoutingPolicy
    is_blind: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """What requests are sent to. speeds: one for each engine."""

    speeds: Sequence[float]
    gateway_count: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trace."""

    ttft_s: Sequence[float]
    token_s: Sequence[float]  # mean time of each request's other tokens
    sequences: Sequence[float]  # that each engine had, on average over the time
    cached_fraction: float  # of prompt tokens, found in caches

    def figures(self) -> dict[str, float]:
        """Returns what is reported."""
        mean = sum(self.sequences) / len(self.sequences)
        return {
            "ttft_p50_s": percentile(self.ttft_s, 50),
            "ttft_p99_s": percentile(self.ttft_s, 99),
            "token_p50_s": percentile(self.token_s, 50),
            "token_p99_s": percentile(self.token_s, 99),
            "balance": max(self.sequences) / mean,
            "cached_fraction": self.cached_fraction,
        }


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class _World:
    """Everything that happens, in order of time."""

    clock: _Clock = field(default_factory=_Clock)
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def after(self, delay_s: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.clock.now_s + delay_s, next(self._numbers), happens))

    def run(self, goes_on: Callable[[], bool]) -> None:
        while self._queue and goes_on():
            self.clock.now_s, _, happens = heapq.heappop(self._queue)
            happens()


def replay(trace: Sequence[Arrival], way: Way, size: Size, seed: int) -> Outcome:
    """Returns what came of a trace, when every request of it has ended."""
    return _Replay(trace, way, size, seed).run()


class _Replay:
    def __init__(self, trace: Sequence[Arrival], way: Way, size: Size, seed: int) -> None:
        self._trace, self._way = trace, way
        self._world, self._draw = _World(), random.Random(seed)
        self._engines = [SimulatedEngine(speed) for speed in size.speeds]
        self._are_stepping = [False] * len(self._engines)
        self._sequence_s = [0.0] * len(self._engines)
        self._looked_s = 0.0
        found = tuple(_route(number) for number in range(len(self._engines)))
        self._routes = Routes({NAME: found}, policies={NAME: way.policy})
        self._routers = [
            Router(lambda: self._routes, self._world.clock, random.Random(seed + number).random)
            for number in range(size.gateway_count)
        ]
        for router in self._routers:
            router.follow()
        self._ttft_s: list[float] = []
        self._token_s: list[float] = []
        self._ended_count = 0

    def run(self) -> Outcome:
        for arrival in self._trace:
            self._world.after(arrival.at_s, lambda each=arrival: self._arrive(each))  # type: ignore[misc]
        for number in range(len(self._engines)):
            self._world.after(self._draw.random() * REPORT_S, lambda each=number: self._report(each))  # type: ignore[misc]
        self._world.run(lambda: self._ended_count < len(self._trace))
        self._look()
        prompt_tokens = sum(each.prompt_tokens for each in self._engines)
        return Outcome(
            self._ttft_s,
            self._token_s,
            [each / self._world.clock.now_s for each in self._sequence_s],
            sum(each.found_tokens for each in self._engines) / prompt_tokens,
        )

    def _arrive(self, arrival: Arrival) -> None:
        router = self._draw.choice(self._routers)
        asked = self._asked(arrival)
        route = router.pick(NAME, asked)
        assert route is not None
        flight = router.at(route, asked)
        flight.__enter__()
        begin_s, first_s = self._world.clock.now_s, [0.0]

        def on_tokens(count: int, now_s: float) -> None:
            if count and not first_s[0]:
                first_s[0] = now_s
                self._ttft_s.append(now_s - begin_s)
            if count:
                flight.told(count)
            else:
                self._end(flight, (now_s - first_s[0]) / max(1, arrival.output_token_count - 1))

        self._look()
        self._engines[route.index].add(Running(arrival, on_tokens))
        self._step(route.index)

    def _end(self, flight: Flight, token_s: float) -> None:
        flight.__exit__(None, None, None)
        self._token_s.append(token_s)
        self._ended_count += 1

    def _step(self, number: int) -> None:
        engine = self._engines[number]
        if self._are_stepping[number] or engine.is_idle:
            return
        self._are_stepping[number] = True

        def ends() -> None:
            self._look()
            engine.end(self._world.clock.now_s)
            self._are_stepping[number] = False
            self._step(number)

        self._world.after(engine.begin(), ends)

    def _report(self, number: int) -> None:
        engine = self._engines[number]
        said = {
            "running_count": len(engine.running),
            "waiting_count": len(engine.waiting),
            "used_block_eighths": min(8, 8 * engine.held // engine.cache_tokens),
        }
        self._world.after(DELAY_S, lambda: self._hear(number, said))
        self._world.after(REPORT_S, lambda: self._report(number))

    def _hear(self, number: int, said: dict[str, int]) -> None:
        found = list(self._routes.replicas[NAME])
        found[number] = replace(found[number], **said)  # type: ignore[arg-type]
        self._routes = replace(self._routes, replicas={NAME: tuple(found)})
        for router in self._routers:
            router.follow()

    def _look(self) -> None:
        """Adds up how many sequences engines had since the last look."""
        now_s = self._world.clock.now_s
        for number, engine in enumerate(self._engines):
            self._sequence_s[number] += engine.sequence_count * (now_s - self._looked_s)
        self._looked_s = now_s

    def _asked(self, arrival: Arrival) -> Asked:
        error = 1 + ESTIMATE_ERROR * (2 * self._draw.random() - 1)
        asked = Asked(token_count=int(arrival.prompt_token_count * error))
        if self._way.is_blind:
            return asked
        chain, hashes = 0, []
        for block in arrival.blocks:
            chain = hash((chain, block))
            hashes.append(chain)
        counts = tuple(range(BLOCK, BLOCK * (len(hashes) + 1), BLOCK))
        front = arrival.blocks[: FRONT_TOKENS // BLOCK]
        return replace(
            asked,
            session_key=arrival.session_key,
            prefixes=tuple(hashes),
            prefix_token_counts=counts,
            front=str(front) if len(front) * BLOCK == FRONT_TOKENS else "",
        )


def _route(number: int) -> Route:
    return Route(
        deployment=NAME,
        index=number,
        replica_uid=ReplicaUid(f"replica-{number}"),
        epoch=1,
        node=NodeId(f"node-{number}"),
        address=f"sim:{number}",
        engine_uuid=f"engine-{number}",
        engine_key=b"",
        is_ready=True,
        running_count=0,
        waiting_count=0,
    )
