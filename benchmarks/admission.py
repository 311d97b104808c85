"""Measures whether tenants get their shares in front of an engine that is asked for more than it can do.

`python -m benchmarks.admission`. The gateway is real, as are its clients; the engine behind it is simulated: 16
sequences at a time, a token each in every step, 25 ms a step. Aims: at twice the load that it can bear, two tenants of
equal weight get shares within 5 % of each other, though one sends requests that are ten times as large; and a burst of
one does not raise the other's time to the first token (p99) by more than 20 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc

from benchmarks.support import machine
from benchmarks.support.fleet_child import Child, child
from benchmarks.support.metrics import percentile
from benchmarks.support.paths import LOGS_DIRECTORY, RESULTS_DIRECTORY, ROOT, result_path
from benchmarks.support.records import Records
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.v1 import generation_pb2
from roundhouse.v1 import inference_service_pb2 as pb
from roundhouse.v1.inference_service_pb2_grpc import InferenceServiceStub

SHARE_FRACTION, BURST_FRACTION = 0.05, 0.20  # the aims
BATCH, STEP_S, PROMPT_TOKENS = 16, 0.025, 512
QUEUE_REQUESTS = 200
PATIENCE_S = 30.0
SETTLE_FRACTION = 0.25  # of what is measured, before it is


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    shares_s: float
    round_s: float
    rounds: int  # with and without a burst, in turn: what others do on the machine then hits both


WHOLE, QUICK = Size(60.0, 15.0, 4), Size(6.0, 6.0, 1)


@dataclass(frozen=True, slots=True)
class Shape:
    """Requests of one kind: a prompt, and outputs that lie evenly between two lengths."""

    prompt: int
    least: int
    most: int

    @property
    def capacity(self) -> float:
        """How many of them an engine does in a second if it does nothing else."""
        return BATCH / STEP_S / ((self.least + self.most) / 2 + 1)


LARGE, SMALL, MIDDLE = Shape(256, 64, 192), Shape(16, 4, 20), Shape(64, 16, 32)


@dataclass
class Seen:
    """What clients of one tenant saw."""

    first_token_s: list[float] = field(default_factory=list)
    refused_count: int = 0

    def figures(self) -> Mapping[str, float]:
        """Returns it in figures."""
        return {
            "served_count": len(self.first_token_s),
            "refused_count": self.refused_count,
            "first_token_p50_s": percentile(self.first_token_s, 50),
            "first_token_p99_s": percentile(self.first_token_s, 99),
        }


class Clients:
    """Clients of all tenants, on one connection. `seen` is what they saw since it was last made new."""

    def __init__(self, channel: grpc.aio.Channel, seed: int) -> None:
        self._stub: Any = InferenceServiceStub(channel)
        self._draws = random.Random(seed)
        self.seen: dict[str, Seen] = {}

    async def one(self, tenant: str, shape: Shape) -> None:
        """Sends a request and reads its answer."""
        output = self._draws.randint(shape.least, shape.most)
        prompt = generation_pb2.ContentPart(token_ids=generation_pb2.TokenIds(ids=range(shape.prompt)))
        request = pb.GenerateRequest(deployment="chat", prompt=[prompt], sampling={"max_tokens": output})
        start_s, is_first = time.perf_counter(), True
        try:
            async with cancelling(
                self._stub.Generate(request, metadata=[("authorization", f"Bearer {tenant}")])
            ) as call:
                async for message in call:
                    if is_first and message.events[0].HasField("delta"):
                        is_first = False
                        self._of(tenant).first_token_s.append(time.perf_counter() - start_s)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            self._of(tenant).refused_count += 1

    async def open(self, tenant: str, shape: Shape, fraction: float) -> None:
        """Sends requests independently of each other, at a fraction of what the engine can do of them, for ever."""
        async with asyncio.TaskGroup() as group:
            next_s = time.perf_counter()
            while True:
                next_s += self._draws.expovariate(fraction * shape.capacity)
                await asyncio.sleep(next_s - time.perf_counter())
                group.create_task(self.one(tenant, shape), name=f"request of {tenant}")

    async def closed(self, tenant: str, shape: Shape) -> None:
        """Sends requests one after the other, for ever."""
        while True:
            await self.one(tenant, shape)

    @contextlib.asynccontextmanager
    async def sending(self, loads: Iterable[Any]) -> AsyncIterator[None]:
        """Has loads for the block."""
        tasks = [asyncio.create_task(each, name="load") for each in loads]
        try:
            yield
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _of(self, tenant: str) -> Seen:
        return self.seen.setdefault(tenant, Seen())


class Bench:
    """One run: what is measured, and what came of it."""

    def __init__(self, house: Child, clients: Clients, records: Records, size: Size) -> None:
        self._house, self._clients, self._records, self._size = house, clients, records, size

    async def shares(self) -> None:
        """Tells who gets what of two tenants, each sending as much as the engine can do alone."""
        loads = [self._clients.open("large", LARGE, 1.0), self._clients.open("small", SMALL, 1.0)]
        async with self._clients.sending(loads):
            got = await self._measured("shares", self._size.shares_s)
        served = got["served"]
        difference = abs(served["large"] - served["small"]) / ((served["large"] + served["small"]) / 2)
        self._records.add("shares", difference_fraction=difference, aim_fraction=SHARE_FRACTION, **got)
        print(
            f"at twice what it can do: large ones got {served['large']:.0f} weighted tokens, small ones "
            f"{served['small']:.0f}: {difference:.1%} apart (aim {SHARE_FRACTION:.0%}); at most {got['most_waiting']} "
            "sequences waited at the engine"
        )

    async def burst_at_overload(self) -> None:
        """Has two tenants want more than their share, and then one of them five times as much."""
        async with self._clients.sending([*self._closed("steady", 24), *self._closed("bursty", 24)]):
            await self._bursts("overload")

    async def burst_beside_a_light_one(self) -> None:
        """Has a tenant want less than its share beside one that wants all the rest, and then five times as much.

        Before, nobody wants that much: what the other has no part in is what a full engine costs, where the next
        request has to wait for a place.
        """
        clients = self._clients
        async with clients.sending([clients.open("steady", MIDDLE, 0.3)]):
            async with clients.sending([clients.open("bursty", MIDDLE, 0.3)]):
                empty = await self._measured("not full", self._size.round_s)
            self._records.add("not full", load="light", **empty)
            print(f"light: p99 {_p99_s(empty) * 1e3:.0f} ms while the engine is not full")
            async with clients.sending(self._closed("bursty", 24)):
                await self._bursts("light")

    def _closed(self, tenant: str, count: int) -> Sequence[Any]:
        return [self._clients.closed(tenant, MIDDLE) for _ in range(count)]

    async def _bursts(self, load: str) -> None:
        """Has the bursty tenant burst, again and again, and compares the medians of the rounds."""
        before, during = [], []
        for _ in range(self._size.rounds):
            before.append(await self._measured("before", self._size.round_s))
            async with self._clients.sending(self._closed("bursty", 96)):
                during.append(await self._measured("during", self._size.round_s))
        quiet, loud = (statistics.median(map(_p99_s, each)) for each in (before, during))
        self._records.add(
            "burst",
            load=load,
            raised_fraction=loud / quiet - 1,
            aim_fraction=BURST_FRACTION,
            before=before,
            during=during,
        )
        print(
            f"{load}: p99 of the first token of the steady tenant {quiet * 1e3:.0f} ms, while the other bursts "
            f"{loud * 1e3:.0f} ms: {loud / quiet - 1:+.1%} (aim {BURST_FRACTION:.0%})"
        )
        for each in (*before, *during):
            parts = [f"{who} {figures['served_count']:.0f}" for who, figures in sorted(each["seen"].items())]
            print(f"  {each['what']}: p99 {_p99_s(each) * 1e3:.0f} ms, requests served {', '.join(parts)}")

    async def _measured(self, what: str, measure_s: float) -> Mapping[str, Any]:
        await asyncio.sleep(SETTLE_FRACTION * measure_s)
        cores = sorted(os.sched_getaffinity(0))
        self._clients.seen = {}
        before, begin_s, busy_s = await self._served(), time.perf_counter(), machine.busy_s(cores)
        await asyncio.sleep(measure_s)
        after, took_s = await self._served(), time.perf_counter() - begin_s
        seen = {tenant: each.figures() for tenant, each in self._clients.seen.items()}
        return {
            "what": what,
            "served": {name: each - before["served"].get(name, 0) for name, each in after["served"].items()},
            "seen": seen,
            "most_waiting": after["most_waiting"],
            "late_fraction": 1 - (after["steps"] - before["steps"]) * STEP_S / took_s,  # of the engine's steps
            "busy_fraction": (machine.busy_s(cores) - busy_s) / took_s / len(cores),
        }

    async def _served(self) -> Mapping[str, Any]:
        return await self._house.ask("served", timeout_s=PATIENCE_S)


def _p99_s(measured: Mapping[str, Any]) -> float:
    """Returns how long the first token of the steady tenant took."""
    taken: float = measured["seen"]["steady"]["first_token_p99_s"]
    return taken


async def _measure(size: Size, seed: int, records: Records) -> None:
    cores = sorted(os.sched_getaffinity(0))
    first, rest = cores[:1], cores[1:] or cores
    arguments = {
        "batch": BATCH,
        "step_s": STEP_S,
        "prompt_tokens": PROMPT_TOKENS,
        "queue_requests": QUEUE_REQUESTS,
    }
    os.sched_setaffinity(0, rest)
    log = LOGS_DIRECTORY / "admission-house.log"
    for measure in (Bench.shares, Bench.burst_at_overload, Bench.burst_beside_a_light_one):
        async with child("benchmarks.support.admission_house", arguments, first, log) as house:  # which has no past
            address = (await house.ask("address", timeout_s=PATIENCE_S))["address"]
            async with open_channel(address) as channel:
                await measure(Bench(house, Clients(channel, seed), records, size))


def main(arguments: list[str] | None = None) -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a round of some seconds for each load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS_DIRECTORY, help="directory of the results")
    asked = parser.parse_args(arguments)
    size = QUICK if asked.quick else WHOLE
    cores = sorted(os.sched_getaffinity(0))
    records = Records(result_path(asked.results, "admission"))
    records.add(
        "run",
        **machine.described(ROOT, cores),
        seed=asked.seed,
        **asdict(size),
        batch=BATCH,
        step_s=STEP_S,
        queue_requests=QUEUE_REQUESTS,
    )
    asyncio.run(_measure(size, asked.seed, records))
    print(f"raw results: {records.path}")


if __name__ == "__main__":
    main()
