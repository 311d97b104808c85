"""Clients leave and come back, connections are cut and gateways are killed: every position comes once, in order.

100 requests here, eight at a time. ROUNDHOUSE_COMINGS_RUNS says how many, ROUNDHOUSE_COMINGS_SEED which, and
ROUNDHOUSE_COMINGS_RESULTS names a file to which a line of results is appended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from roundhouse.client import Client, Generation, deployment
from roundhouse.v1 import generation_pb2
from tests.support.cluster import Cluster, cluster
from tests.support.results import tell
from tests.support.tcp_proxy import TcpProxy
from tests.support.undisturbed import KINDS, PROMPT, Came, options, read

RUNS = int(os.environ.get("ROUNDHOUSE_COMINGS_RUNS", "100"))
SEED = int(os.environ.get("ROUNDHOUSE_COMINGS_SEED", "1"))
AT_A_TIME = 8
GATEWAYS = 3
SEEDS = 3
DETACH_S = 60.0
PATIENCE_S = 180.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 5 * RUNS)]


@dataclass
class Gateways:
    """Several gateways, of which one after the other is killed and started again where it was."""

    it: Cluster
    addresses: dict[str, str] = field(default_factory=dict)
    killed_count: int = 0

    async def start(self) -> None:
        for number in range(GATEWAYS):
            name = f"gateway-{number}"
            self.addresses[name] = await self.it.start_gateway(name)

    @contextlib.asynccontextmanager
    async def dying(self, draws: random.Random) -> AsyncIterator[None]:
        """Kills and starts them for the block."""
        task = asyncio.create_task(self._kill(draws))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _kill(self, draws: random.Random) -> None:
        while True:
            await asyncio.sleep(draws.uniform(0.2, 1.5))  # for how long all is well
            name = draws.choice(list(self.addresses))
            self.it.kill(name)
            self.killed_count += 1
            await self.it.start_gateway(name, "--listen", self.addresses[name])


@dataclass
class Visit:
    """One client that reads a request for a while, over gateways in an order of its own."""

    gateways: Gateways
    draws: random.Random
    counts: Counter[str]

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        addresses = self.draws.sample(list(self.gateways.addresses.values()), GATEWAYS)
        async with contextlib.AsyncExitStack() as stack:
            if self.draws.random() < 0.3:
                proxy = await stack.enter_async_context(TcpProxy(addresses[0]).serving())
                proxy.limits.extend(self.draws.randrange(100, 4000) for _ in range(3))
                addresses[0] = proxy.address
                self.counts["cut"] += 1
            yield await stack.enter_async_context(Client(addresses))

    async def read(self, generation: Generation, came: Came, most: int | None) -> None:
        """Reads until so many tokens more have come, then leaves without a word; to the end if None."""
        end = None if most is None else came.told_count + most
        async with generation:
            async for event in generation.events():
                if event.WhichOneof("event") == "finished" and event.finished.choice in came.hashes:
                    continue  # whoever attaches is told of ends again
                came.take(event)
                if end is not None and came.told_count >= end and came.usage is None:
                    generation.detach()
                    self.counts["left"] += 1
                    return


async def comes_and_goes(visit: Visit, kind: str, seed: int, request_id: str) -> Came:
    """Runs a request whose client leaves up to three times, and comes back at any gateway."""
    came = Came()
    asked = options(kind, seed)
    asked["request_id"], asked["timeout_s"], asked["detach_s"] = request_id, PATIENCE_S, DETACH_S
    stays: Sequence[int] = [visit.draws.randrange(1, 80) for _ in range(visit.draws.randrange(4))]
    async with visit.client() as client:
        await visit.read(client.generate("demo", PROMPT, **asked), came, stays[0] if stays else None)
    for number in range(len(stays)):
        if came.usage is not None:
            break
        after = {choice: len(ids) for choice, ids in came.ids.items()}
        async with visit.client() as client:
            generation = client.attach("demo", request_id, after=after)
            most = stays[number + 1] if number + 1 < len(stays) else None
            await visit.read(generation, came, most)
        visit.counts["attached"] += 1
    return came


async def test_every_position_comes_once_and_in_order_whoever_leaves_and_whatever_dies(tmp_path: Path) -> None:
    draws, counts = random.Random(SEED), Counter[str]()
    async with cluster(tmp_path) as (it, direct):
        await direct.deployments.create(deployment("demo", builtin="demo", replica_count=2))
        await direct.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
        whole = {
            (kind, seed): await read(direct.generate("demo", PROMPT, **options(kind, seed)))
            for kind in KINDS
            for seed in range(SEEDS)
        }
        gateways = Gateways(it)
        await gateways.start()
        turns = asyncio.Semaphore(AT_A_TIME)

        async def run(number: int) -> None:
            own = random.Random(f"{SEED}/{number}")
            kind, seed = own.choice(list(KINDS)), own.randrange(SEEDS)
            async with turns:
                came = await comes_and_goes(Visit(gateways, own, counts), kind, seed, f"run-{number}")
            assert came.output == whole[kind, seed].output, (number, kind, seed)
            assert came.exactness == {generation_pb2.EXACTNESS_EXACT}
            counts["whole"] += 1

        async with gateways.dying(draws), asyncio.TaskGroup() as group:
            for number in range(RUNS):
                group.create_task(run(number))
        counts["gateways killed"] = gateways.killed_count
    assert counts["attached"] > 0
    assert counts["gateways killed"] > 0
    tell("ROUNDHOUSE_COMINGS_RESULTS", {"seed": SEED, **counts})
