"""Keeps one gateway at capacity for half an hour, and looks whether its memory grows and who gets an error.

`python -m benchmarks.soak --minutes 30`. A token source stands for the engine (see `support/token_source.py`). A
hundred clients send one request after another: 80 % read them to their end, 10 % cancel them by id, 5 % leave, 5 %
read far slower than tokens come. Every position has to come once and in order. Aims: memory that is flat after the
warm-up (its slope is told, in MiB an hour), and no error that is not the client's own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.support import machine
from benchmarks.support.fleet_child import Child, child
from benchmarks.support.paths import LOGS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.relays import gateway
from benchmarks.support.soak_users import FATES, RATE, Users
from benchmarks.support.trend import trend
from roundhouse.kit.channel import open_channel

USER_COUNT = 100
CONNECTION_COUNT = 10
PERIOD_S = 10.0
WARM_FRACTION, LONGEST_WARM_S = 1 / 3, 300.0
PATIENCE_S = 60.0
MINUTES, QUICK_MINUTES = 30.0, 2.0
_OWN = ("grpc.use_local_subchannel_pool", 1)
_SMALL = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))

Sample = Mapping[str, Any]


@contextlib.asynccontextmanager
async def _soaked(seed: int, folder: Path) -> AsyncIterator[tuple[psutil.Process, Child, Users]]:
    """Runs a source, a gateway and the ways to it; gives the gateway's process, the source and clients."""
    cores = sorted(os.sched_getaffinity(0))
    first, rest = cores[:1], cores[1:] or cores
    log = LOGS_DIRECTORY / "soak-source.log"
    async with child("benchmarks.support.token_source", {}, rest, log) as source, contextlib.AsyncExitStack() as stack:
        where = await source.ask("where", timeout_s=PATIENCE_S)
        way = await stack.enter_async_context(gateway(where["address"], first, folder))
        os.sched_setaffinity(0, rest)
        channels: list[grpc.aio.Channel] = [
            await stack.enter_async_context(open_channel(way.address, options=[_OWN, *options]))
            for options in (*[()] * CONNECTION_COUNT, _SMALL)
        ]
        for each in channels:
            await asyncio.wait_for(each.channel_ready(), PATIENCE_S)
        yield psutil.Process(way.pid), source, Users(channels[:-1], channels[-1], seed)


async def _soak(minutes: float, seed: int, records: Records, folder: Path) -> bool:
    """Returns whether nothing went wrong that is not a client's own."""
    async with _soaked(seed, folder) as (process, source, users):
        ending, begin_s = asyncio.Event(), time.monotonic()
        tasks = [asyncio.create_task(users.run(number, ending)) for number in range(USER_COUNT)]
        samples: list[Sample] = [_sample(process, users, (), 0.0)]
        try:
            while (now_s := time.monotonic() - begin_s) < minutes * 60:
                await asyncio.wait(tasks, timeout=min(PERIOD_S, minutes * 60 - now_s))
                samples.append(_sample(process, users, samples, time.monotonic() - begin_s))
                records.add("sample", **samples[-1])
                _print(samples[-1])
            ending.set()
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        broken = [repr(each) for each in ends if each is not None]
        live = await source.ask("live", timeout_s=PATIENCE_S)
    return _told(samples, users, broken, live["count"], minutes, records)


def _sample(process: psutil.Process, users: Users, before: Sequence[Sample], at_s: float) -> Sample:
    cpu = process.cpu_times()
    cpu_s = cpu.user + cpu.system
    last = before[-1] if before else {"at_s": at_s - PERIOD_S, "cpu_s": cpu_s, "tokens": 0}
    passed_s = at_s - last["at_s"]
    return {
        "at_s": at_s,
        "rss_bytes": process.memory_info().rss,
        "cpu_s": cpu_s,
        "cpu_fraction": (cpu_s - last["cpu_s"]) / passed_s,
        "tokens": users.tokens,
        "tokens_per_s": (users.tokens - last["tokens"]) / passed_s,
        "requests": dict(users.requests),
        "error_count": users.error_count,
    }


def _told(
    samples: Sequence[Sample], users: Users, broken: Sequence[str], live: int, minutes: float, records: Records
) -> bool:
    warm_s = min(LONGEST_WARM_S, minutes * 60 * WARM_FRACTION)
    warm = [each for each in samples if each["at_s"] >= warm_s]
    line = trend([each["at_s"] / 3600 for each in warm], [each["rss_bytes"] / 2**20 for each in warm])
    errors = [*users.errors, *broken]
    error_count = users.error_count + len(broken)
    records.add(
        "memory",
        warm_s=warm_s,
        sample_count=len(warm),
        mib_per_hour=line.slope,
        mib_per_hour_error=line.slope_error,
        explained_fraction=line.explained_fraction,
        **{f"{name}_rss_bytes": each["rss_bytes"] for name, each in (("warm", warm[0]), ("last", warm[-1]))},
    )
    records.add("end", error_count=error_count, errors=errors, requests=dict(users.requests), left_at_source=live)
    print(
        f"memory after {warm_s:.0f} s: {warm[0]['rss_bytes'] / 2**20:.1f} MiB, at the end "
        f"{warm[-1]['rss_bytes'] / 2**20:.1f}; {line.slope:+.2f} ± {line.slope_error:.2f} MiB an hour, which explains "
        f"{line.explained_fraction:.0%} of what {len(warm)} samples differ"
    )
    print(f"{users.requests.total()} requests, {users.tokens} tokens, {error_count} errors, {live} left at the engine")
    for each in errors:
        print(f"  {each}")
    return not errors and not live


def _print(sample: Sample) -> None:
    print(
        f"{sample['at_s']:6.0f} s: {sample['rss_bytes'] / 2**20:6.1f} MiB, {sample['cpu_fraction']:.0%} of a core, "
        f"{sample['tokens_per_s']:.0f} tokens a second, {sum(sample['requests'].values())} requests, "
        f"{sample['error_count']} errors",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for; the exit status is 1 if something went wrong that is nobody's own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, help=f"default: {MINUTES:g}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MINUTES:g} minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    minutes = asked.minutes or (QUICK_MINUTES if asked.quick else MINUTES)
    records = Records(result_path(asked.results, "soak"))
    cores = sorted(os.sched_getaffinity(0))
    run = {"minutes": minutes, "seed": asked.seed, "users": USER_COUNT, "rate": RATE, "fates": dict(FATES)}
    records.add("run", **machine.described(ROOT, cores), **run)
    with tempfile.TemporaryDirectory(prefix="roundhouse-soak-") as folder:
        is_well = asyncio.run(_soak(minutes, asked.seed, records, Path(folder)))
    print(f"raw results: {records.path}")
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
