"""Replays arrivals of requests against simulated engines, routed as a gateway does by each policy.

`python -m benchmarks.routing`. Picks are made by the code that gateways have; engines batch, cache prefixes and report
as ours do, and their steps take what a formula says. All is simulated, so it needs no quiet machine and gives the same
again. With `--trace FILE`, what is in there is replayed instead (see benchmarks/support/routing_traces.py).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.support import machine, routing_traces
from benchmarks.support.paths import RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.routing_run import Size, Way, replay
from benchmarks.support.routing_traces import TRACES, Arrival

LENGTH_S, QUICK_LENGTH_S = 60.0, 5.0
ENGINE_COUNT, GATEWAY_COUNTS = 8, "1,8"
SLOW = 0.6  # the speed of one engine in eight, in `bursts`
WAYS = (
    Way("round_robin", "round_robin"),
    Way("power_of_two, blind", "power_of_two", is_blind=True),
    Way("least_loaded", "least_loaded"),
    Way("power_of_two", "power_of_two"),
)


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_LENGTH_S:g} s of each trace")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="replay this one alone")
    parser.add_argument("--engines", type=int, default=ENGINE_COUNT, help="default: %(default)s")
    parser.add_argument("--gateways", default=GATEWAY_COUNTS, metavar="N,N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the traces that were drawn there as well")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    records = Records(result_path(asked.results, "routing"))
    records.add(
        "run",
        **machine.described(ROOT, sorted(os.sched_getaffinity(0))),
        seed=asked.seed,
        engines=asked.engines,
    )
    for name, trace in _traces(asked.trace, QUICK_LENGTH_S if asked.quick else LENGTH_S, asked.seed).items():
        if asked.write is not None:
            routing_traces.write(trace, asked.write / f"{name}.jsonl")
        speeds = [SLOW if name == "bursts" and number % 8 == 7 else 1.0 for number in range(asked.engines)]
        for gateway_count in map(int, asked.gateways.split(",")):
            _compare(name, trace, Size(speeds, gateway_count), asked.seed, records)
    print(f"raw results: {records.path}")


def _traces(file: Path | None, length_s: float, seed: int) -> Mapping[str, Sequence[Arrival]]:
    if file is not None:
        return {file.stem: routing_traces.read(file)}
    return {name: drawn(length_s, seed) for name, drawn in TRACES.items()}


def _compare(name: str, trace: Sequence[Arrival], size: Size, seed: int, records: Records) -> None:
    print(f"{name}: requests: {len(trace)}, engines: {len(size.speeds)}, gateways: {size.gateway_count}")
    print(f"  {'':20} first token p50, p99   others p50, p99  max/mean load  cached")
    for way in WAYS:
        figures = replay(trace, way, size, seed).figures()
        records.add("routed", trace=name, requests=len(trace), gateways=size.gateway_count, way=way.name, **figures)
        print(
            f"  {way.name:20} {figures['ttft_p50_s'] * 1e3:7.0f} {figures['ttft_p99_s'] * 1e3:8.0f} ms"
            f" {figures['token_p50_s'] * 1e3:8.1f} {figures['token_p99_s'] * 1e3:6.1f} ms"
            f" {figures['balance']:11.2f} {figures['cached_fraction']:9.0%}"
        )


if __name__ == "__main__":
    main()
