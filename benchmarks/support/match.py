"""One model's part of the comparison: who serves what, and when.

The main entrants are loaded side by side and take turns at every load, as often as asked. Each of the others then comes
alone, for the memory's sake; before it serves a load, the first of the main entrants does so again if that is quick.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.support.environments import python_of
from benchmarks.support.loads import (
    Closed,
    Load,
    Open,
    closed_requests,
    mixed_requests,
    open_requests,
    output_token_count,
)
from benchmarks.support.metrics import Bytes, Goal
from benchmarks.support.models import CONTEXT, Model, bytes_read, vocabulary_size
from benchmarks.support.process import PeerFailed, PeerProcess
from benchmarks.support.records import Records
from benchmarks.support.roster import Entrant
from benchmarks.support.seat import Seat, Terms
from benchmarks.support.wire import Request, Setup

BATCH_SIZE = 64
KV_CACHE_BYTES = 1280 << 20  # for every engine; the largest load just fits, in blocks of any size
VISIT_FRACTION = 0.5  # of the usual length of open loads, for the others: most of them fall far behind
QUICK_S = 4.0  # what took longer is not repeated, but by the main entrants for themselves
_WARM_UPS = ((2, 64, 8), (1, 600, 4), (8, 32, 4))  # requests, prompt, output


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all models of a run."""

    root: Path
    records: Records
    logs: Path
    cores: Sequence[int]
    rounds: int
    bandwidth: float  # bytes a second
    deadline_s: float  # on the monotonic clock; what would begin later is left out
    open_fraction: float  # of the usual length of open loads
    longest_s: float  # what the others are expected to take longer for is left out
    seed: str


class Match:
    """Plays all loads on one model."""

    def __init__(self, model: Model, directory: Path, rules: Rules) -> None:
        self._model = model
        self._directory = directory
        self._rules = rules
        self._vocabulary = vocabulary_size(directory)
        goal, read = Goal(model.first_token_s, model.token_s), Bytes(*bytes_read(directory))
        self._terms = Terms(model.name, goal, read, rules.bandwidth, rules.cores, rules.seed)
        self._round_count = 0

    def play(self, entrants: Sequence[Entrant], loads: Sequence[Load]) -> None:
        """Runs everybody on everything."""
        with ExitStack() as stack:
            mains = [seat for each in entrants if each.is_main and (seat := self._seated(each, stack))]
            rate = self._capacity(mains) if any(isinstance(load, Open) for load in loads) else 0.0
            for load in loads:
                for _ in range(self._rules.rounds):
                    self._round(load, mains, rate)
            for entrant in entrants:
                if not entrant.is_main:
                    self._visit(entrant, mains, loads, rate)

    def _visit(self, entrant: Entrant, mains: Sequence[Seat], loads: Sequence[Load], rate: float) -> None:
        """Lets one of the others come and go. What comes at a pace that is not its own comes for a shorter time."""
        with ExitStack() as stack:
            seat = self._seated(entrant, stack)
            for load in loads if seat is not None else ():
                assert seat is not None
                if entrant.only and load.name not in entrant.only:
                    continue
                if isinstance(load, Open):
                    self._round(load, [*mains[:1], seat], rate, VISIT_FRACTION)
                    continue
                host = [main for main in mains[:1] if main.took_s.get(load.name, QUICK_S) < QUICK_S]
                self._round(load, [*host, seat])
                if self._rules.rounds > 1 and seat.took_s.get(load.name, QUICK_S) < QUICK_S:
                    self._round(load, [*host, seat])

    def _seated(self, entrant: Entrant, stack: ExitStack) -> Seat | None:
        """Has a peer load the model and warm up; returns None if that fails."""
        rules, threads = self._rules, len(self._rules.cores)
        sizes = (KV_CACHE_BYTES, BATCH_SIZE, CONTEXT)
        setup = Setup(str(self._directory), self._model.dtype, threads, list(rules.cores), *sizes, entrant.options)
        python, log = python_of(entrant.environment, rules.root), rules.logs / f"{self._model.name}-{entrant.name}.log"
        names = {"model": self._model.name, "peer": entrant.name}
        if self._is_over():
            rules.records.add("skipped", **names, load="", why="the time for the whole run was over")
            return None
        variables = {"OMP_NUM_THREADS": str(threads), **entrant.variables(python)}
        process = stack.enter_context(PeerProcess(python, entrant.module, rules.root, log, variables))
        try:
            hello = process.load(setup)
            for shape in _WARM_UPS:
                process.run(closed_requests(Closed("warm-up", *shape), self._vocabulary, rules.seed))
        except PeerFailed as error:
            rules.records.add("skipped", **names, load="", why=str(error))
            print(f"  {self._model.name:20} {'':14} {entrant.name:18} failed: {error}", flush=True)
            return None
        told = _without(f"{rules.root}/", {"setup": asdict(setup), "variables": variables})
        rules.records.add("peer", **names, hello=asdict(hello), **told)
        return Seat(entrant, process, self._terms, rules.records)

    def _capacity(self, mains: Sequence[Seat]) -> float:
        """Returns how many requests of all lengths the fastest of the main entrants serves a second."""
        requests = mixed_requests(self._model.mixed_count, self._vocabulary, self._rules.seed)
        rates = [found.tokens_per_s for seat in mains if (found := seat.run("mixed", 0, requests))]
        return max(rates, default=0.0) / output_token_count(requests) * len(requests)

    def _round(self, load: Load, seats: Sequence[Seat], rate: float = 0.0, fraction: float = 1.0) -> None:
        """Lets each in turn serve the same requests, which nobody has seen before."""
        if not seats or (isinstance(load, Open) and not rate):
            return
        self._round_count += 1
        requests = self._requests(load, rate, f"{self._rules.seed}-{self._round_count}", fraction)
        for seat in seats:
            self._turn(seat, load, requests)

    def _requests(self, load: Load, rate: float, seed: str, fraction: float) -> Sequence[Request]:
        if isinstance(load, Closed):
            return closed_requests(load, self._vocabulary, seed)
        duration_s = self._model.open_s * self._rules.open_fraction * fraction
        return open_requests(load.capacity_fraction * rate, duration_s, self._vocabulary, seed)

    def _turn(self, seat: Seat, load: Load, requests: Sequence[Request]) -> None:
        expected_s = seat.expected_s(load) if isinstance(load, Closed) and not seat.entrant.is_main else 0.0
        names = {"model": self._model.name, "peer": seat.entrant.name, "load": load.name}
        if self._is_over():
            self._rules.records.add("skipped", **names, why="the time for the whole run was over")
        elif expected_s > self._rules.longest_s:
            self._rules.records.add("skipped", **names, why=f"it would take about {expected_s:.0f} s")
        else:
            seat.run(load.name, self._round_count, requests, load if isinstance(load, Closed) else None)

    def _is_over(self) -> bool:
        return time.monotonic() > self._rules.deadline_s


def _without(place: str, value: Any) -> Any:
    """Returns a value without the place where this machine keeps the project."""
    if isinstance(value, str):
        return value.replace(place, "")
    return {key: _without(place, each) for key, each in value.items()} if isinstance(value, Mapping) else value
