"""Measures what it costs to pass tokens on: straight from the engine, through our gateway, and through Envoy.

`python -m benchmarks.relay`. The engine is a process without a model that streams tokens at a set rate (no engine on
two cores gives 100,000 a second), with the outbox of a real one: one message for each token while its reader keeps up,
one for many while it does not. The clients are a process too and read bytes. The relay has the first core, all else
the others. The three ways take turns at everything; of the rounds the medians count. Aims: the gateway adds less than
1.5 ms to the first token (p50), and passes on 100,000 tokens a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import pstats
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.support import machine
from benchmarks.support.environments import python_of
from benchmarks.support.fleet_child import Child, child
from benchmarks.support.metrics import percentile
from benchmarks.support.paths import LOGS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from benchmarks.support.relay_report import write
from benchmarks.support.relays import Way, envoy, gateway

DIRECT, GATEWAY, ENVOY = "direct", "gateway", "envoy"
PATIENCE_S = 120.0
WHOLE_FRACTION, LATE_S = 0.95, 0.5  # who passes on less of what comes, or 1 % of it later, does not keep up
MOST_MISSES = 2  # steps of a ladder in succession; on a machine that is not quiet one may be missed by chance
PROFILED = (100, 5_000)  # streams, tokens a second
_LINES = 45


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    ladders: for so many streams, so many tokens a second in all, until a way falls behind for good.
    """

    rounds: int
    first_token_count: int  # in each round
    warm_s: float
    window_s: float
    ladders: Mapping[int, Sequence[int]]


WHOLE = Size(
    rounds=3,
    first_token_count=300,
    warm_s=1.0,
    window_s=3.0,
    ladders={
        1: (200, 20_000, 100_000),
        100: (5_000, 20_000, 60_000, 100_000, 150_000),
        1_000: (5_000, 20_000, 60_000, 100_000, 150_000),
    },
)
QUICK = Size(
    rounds=1,
    first_token_count=30,
    warm_s=0.5,
    window_s=1.0,
    ladders={1: (200, 1_000), 20: (1_000, 4_000), 50: (1_000,)},
)


class Relays:
    """All processes of a run, and what is measured of them."""

    def __init__(self, ways: Sequence[Way], reader: Child, source_pid: int, records: Records) -> None:
        self._ways, self._reader, self._source_pid, self._records = ways, reader, source_pid, records

    async def first_tokens(self, round_: int, count: int) -> None:
        """Measures how long the first token of one request takes, one after the other."""
        for way in self._ways:
            found = await self._reader.ask("first_tokens", address=way.address, count=count, timeout_s=PATIENCE_S)
            took_s = found["first_token_s"]
            p50_s, p99_s = percentile(took_s, 50), percentile(took_s, 99)
            self._records.add("first token", round=round_, way=way.name, p50_s=p50_s, p99_s=p99_s, count=len(took_s))
            print(f"{way.name}: first token p50 {p50_s * 1e3:.2f} ms, p99 {p99_s * 1e3:.2f} ms", flush=True)

    async def climb(self, round_: int, streams: int, ladder: Sequence[int], size: Size) -> None:
        """Measures more and more tokens a second, each way until it falls behind for good."""
        misses = dict.fromkeys(self._ways, 0)
        for offered in ladder:
            for way in [each for each, count in misses.items() if count < MOST_MISSES]:
                keeps_up = await self._keeps_up(round_, way, streams, offered, size)
                misses[way] = 0 if keeps_up else misses[way] + 1

    async def _keeps_up(self, round_: int, way: Way, streams: int, offered: int, size: Size) -> bool:
        pids = {"source": self._source_pid} | ({} if way.pid is None else {"relay": way.pid})
        found = await self._reader.ask(
            "stream",
            address=way.address,
            stream_count=streams,
            rate=offered / streams,
            warm_s=size.warm_s,
            window_s=size.window_s,
            pids=pids,
            timeout_s=PATIENCE_S,
        )
        is_whole = found["whole_count"] == streams and found["tokens_per_s"] >= WHOLE_FRACTION * offered
        keeps_up = bool(is_whole and found["late_p99_s"] <= LATE_S)
        self._records.add(
            "stream", round=round_, way=way.name, streams=streams, offered_per_s=offered, keeps_up=keeps_up, **found
        )
        relay = f", relay {found['relay_cpu_s'] / found['window_s']:.0%} of a core" if "relay_cpu_s" in found else ""
        print(
            f"{way.name}, {streams} at once: {found['tokens_per_s']:.0f} of {offered} tokens a second in "
            f"{found['messages_per_s']:.0f} messages, late p50 {found['late_p50_s'] * 1e3:.1f} ms, p99 "
            f"{found['late_p99_s'] * 1e3:.1f} ms{relay}{'' if keeps_up else ': falls behind'} {found['error']}",
            flush=True,
        )
        return keeps_up


@contextlib.asynccontextmanager
async def _sides(folder: Path) -> AsyncIterator[tuple[str, int, Child]]:
    """Runs the source and the clients; gives the source's address and process id, and the clients."""
    cores = sorted(os.sched_getaffinity(0))
    rest = cores[1:] or cores
    async with (
        child("benchmarks.support.token_source", {}, rest, folder / "relay-source.log") as source,
        child("benchmarks.support.token_reader", {}, rest, folder / "relay-reader.log") as reader,
    ):
        where = await source.ask("where", timeout_s=PATIENCE_S)
        yield where["address"], where["pid"], reader


async def _measure(size: Size, records: Records, names: Sequence[str], folder: Path) -> None:
    first = sorted(os.sched_getaffinity(0))[:1]
    async with contextlib.AsyncExitStack() as stack:
        address, source_pid, reader = await stack.enter_async_context(_sides(LOGS_DIRECTORY))
        ways = [Way(DIRECT, address)]
        if GATEWAY in names:
            ways.append(await stack.enter_async_context(gateway(address, first, folder)))
        if ENVOY in names:
            ways.append(await stack.enter_async_context(envoy(address, first, folder)))
        relays = Relays(ways, reader, source_pid, records)
        for round_ in range(size.rounds):
            await relays.first_tokens(round_, size.first_token_count)
            for streams, ladder in size.ladders.items():
                await relays.climb(round_, streams, ladder, size)


async def _profile(size: Size, folder: Path) -> str:
    """Returns in which functions a gateway spends its time."""
    first = sorted(os.sched_getaffinity(0))[:1]
    counted, (streams, offered) = folder / "profile", PROFILED
    async with _sides(LOGS_DIRECTORY) as (address, _, reader), gateway(address, first, folder, profile=counted) as way:
        await reader.ask(
            "stream",
            address=way.address,
            stream_count=streams,
            rate=offered / streams,
            warm_s=size.warm_s,
            window_s=2 * size.window_s,
            pids={},
            timeout_s=PATIENCE_S,
        )
    told = io.StringIO()
    statistics = pstats.Stats(str(counted), stream=told)
    statistics.strip_dirs().sort_stats(pstats.SortKey.TIME).print_stats(_LINES)
    return told.getvalue()


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--ways", default=f"{GATEWAY},{ENVOY}", help="beside the direct one; default: %(default)s")
    parser.add_argument("--profile", action="store_true", help="only say where a gateway spends its time")
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    size, names, path = QUICK if asked.quick else WHOLE, asked.ways.split(","), result_path(asked.results, "relay")
    with tempfile.TemporaryDirectory(prefix="roundhouse-relay-") as folder:
        if asked.profile:
            target = path.with_name(f"{path.stem}-profile.txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(asyncio.run(_profile(size, Path(folder))), encoding="utf-8")
            print(f"profile: {target}")
            return
        if ENVOY in names:
            python_of(ENVOY, ROOT, has_torch=False)  # takes a moment, which is not one of the run
        records = Records(path)
        records.add("run", **machine.described(ROOT, sorted(os.sched_getaffinity(0))), **asdict(size))
        asyncio.run(_measure(size, records, names, Path(folder)))
    print(f"raw results: {records.path}")
    print(f"tables: {write(records.path)}")


if __name__ == "__main__":
    main()
