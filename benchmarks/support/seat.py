"""One peer with one model: has it serve requests, and records what came of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.support import machine
from benchmarks.support.loads import Closed, output_token_count
from benchmarks.support.metrics import Bytes, Figures, Goal, figures, roofline_fraction, served
from benchmarks.support.process import PeerFailed, PeerProcess
from benchmarks.support.records import Records
from benchmarks.support.roster import Entrant
from benchmarks.support.wire import Request


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all peers with one model."""

    model: str
    goal: Goal
    read: Bytes
    bandwidth: float  # bytes a second
    cores: Sequence[int]
    seed: str


@dataclass(slots=True)
class Seat:
    """A peer that has loaded the model."""

    entrant: Entrant
    process: PeerProcess
    terms: Terms
    records: Records
    took_s: dict[str, float] = field(default_factory=dict)  # by load
    _last: tuple[Closed, float] | None = None  # the last closed load, and what it took

    def run(self, load: str, number: int, requests: Sequence[Request], shape: Closed | None = None) -> Figures | None:
        """Runs a load; returns None if that fails, which is recorded too."""
        terms, name = self.terms, self.entrant.name
        names: dict[str, object] = {"model": terms.model, "peer": name, "load": load, "round": number}
        load_average, before, busy_s = os.getloadavg()[0], machine.joules(), machine.busy_s(terms.cores)
        try:
            outcome = self.process.run(requests)
            if outcome.error:
                raise PeerFailed(outcome.error)
            found = figures(requests, outcome, terms.goal)
        except (PeerFailed, ValueError) as error:
            self.records.add("skipped", **names, why=str(error))
            print(f"  {terms.model:20} {load:14} {name:18} failed: {error}", flush=True)
            return None
        after, busy_s = machine.joules(), machine.busy_s(terms.cores) - busy_s
        self.took_s[load] = output_token_count(requests) / found.tokens_per_s
        self._last = self._last if shape is None else (shape, self.took_s[load])
        self.records.add(
            "load",
            **names,
            figures=asdict(found),
            roofline_fraction=self._roofline(shape, found),
            joules=None if before is None or after is None else after - before,
            wall_s=outcome.wall_s,
            cpu_s=outcome.cpu_s,
            others_fraction=max(0.0, busy_s - outcome.cpu_s) / outcome.wall_s / len(terms.cores),
            load_average=load_average,
            seed=terms.seed,
            requests=[[one.at_s, one.first_s, one.last_s, one.token_count] for one in served(requests, outcome)],
        )
        rate, own = found.tokens_per_s, found.tokens_per_cpu_s
        print(f"  {terms.model:20} {load:14} {name:18} {rate:9.1f}/s {own:9.1f}/cpu-s", flush=True)
        return found

    def expected_s(self, load: Closed) -> float:
        """Returns about how long a load will take, by the last one; 0 if nothing is known."""
        if self._last is None:
            return 0.0
        last, took_s = self._last
        # A step of twice as many sequences takes more than once and less than twice the time.
        return took_s * load.output_count / last.output_count * math.sqrt(load.count / last.count)

    def _roofline(self, shape: Closed | None, found: Figures) -> float | None:
        """Returns the share of a decode step that memory alone would take; None where prompts are most of the work."""
        if shape is None or shape.prompt_count > shape.output_count:
            return None
        counts = (shape.count, shape.prompt_count, shape.output_count)
        return roofline_fraction(self.terms.read, *counts, found.token_p50_s, self.terms.bandwidth)
