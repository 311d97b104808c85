"""Engines are killed in mid-stream, and their requests go on at another one as if nothing had been.

30 kills here. ROUNDHOUSE_FAILOVER_KILLS says how many, ROUNDHOUSE_FAILOVER_SEED which, and ROUNDHOUSE_FAILOVER_RESULTS
names a file to which a line of results is appended.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from engines.demo_model import MODEL_DIR
from nodeagent.plan import EARLY_DEATH_S
from roundhouse.client import Client, deployment
from roundhouse.v1 import deployment_pb2, generation_pb2
from tests.support.cluster import cluster
from tests.support.results import tell
from tests.support.undisturbed import KINDS, PROMPT, Came, options, read, reading

KILLS = int(os.environ.get("ROUNDHOUSE_FAILOVER_KILLS", "30"))
SEED = int(os.environ.get("ROUNDHOUSE_FAILOVER_SEED", "1"))
REPLICAS = 2
PATIENCE_S = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 30 * KILLS)]


def random_weights(folder: Path) -> Path:
    """Makes a model like the demo model whose weights are noise, so that at temperature 1 every token is a surprise."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL_DIR, folder)
    weights = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(SEED)
    for name, each in weights.items():
        if each.dim() > 1:
            weights[name] = (torch.randn(each.shape, generator=noise) * 0.05).to(each.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


async def ready(client: Client, name: str) -> Mapping[str, deployment_pb2.Replica]:
    """Waits until all replicas are READY, however often they have died; returns them."""
    async with client.deployments.watch() as events, asyncio.timeout(PATIENCE_S):
        async for _ in events:
            replicas = (await client.replicas.list(name)).replicas
            if [each.state for each in replicas] == [deployment_pb2.REPLICA_STATE_READY] * REPLICAS:
                return {each.name: each for each in replicas}
    raise AssertionError("the watch ended")


async def settled(client: Client, name: str) -> Mapping[str, int]:
    """Returns the processes of those engines whose death is none of a crash loop: they have been READY for a while."""
    while True:
        now_s = time.time()
        replicas = (await ready(client, name)).values()
        ages_s = {each.name: now_s - each.state_time.ToNanoseconds() / 1e9 for each in replicas}
        old = {each.name: each.engine_pid for each in replicas if ages_s[each.name] > EARLY_DEATH_S}
        if old:
            return old
        await asyncio.sleep(EARLY_DEATH_S - max(ages_s.values()) + 0.1)


async def killed_once(client: Client, name: str, kind: str, seed: int, at: int) -> Came:
    """Runs a request whose engine is killed once it has told so many tokens; returns what came of it."""
    while True:
        pids = await settled(client, name)
        generation = client.generate(name, PROMPT, **options(kind, seed))
        came, was_there = Came(), False
        async for _ in reading(generation, came):
            if not was_there and came.told_count >= at and generation.started is not None:
                was_there = True
                if generation.started.replica in pids:
                    os.kill(pids[generation.started.replica], signal.SIGKILL)
        if generation.started is not None and generation.started.replica in pids:
            return came


async def test_a_request_whose_engine_is_killed_goes_on_to_the_same_end(tmp_path: Path) -> None:
    gaps_s: list[float] = []
    counts: Counter[str] = Counter()

    async def kill(client: Client, name: str, kills: int) -> None:
        draws, whole = random.Random(f"{SEED}/{name}"), dict[tuple[str, int], Came]()
        number = 0
        while number < kills:
            kind, seed = list(KINDS)[number % len(KINDS)], draws.randrange(4)
            if (kind, seed) not in whole:
                await ready(client, name)
                whole[kind, seed] = await read(client.generate(name, PROMPT, **options(kind, seed)))
                assert not whole[kind, seed].resumed
            expected = whole[kind, seed]
            came = await killed_once(client, name, kind, seed, draws.randrange(1, max(2, expected.told_count * 3 // 4)))
            if not came.resumed:  # it had ended before the kill reached its engine
                counts["too late"] += 1
                assert counts["too late"] < KILLS
                continue
            number += 1
            assert [each.reason for each in came.resumed] == [generation_pb2.RESUME_REASON_ENGINE_LOST]
            assert {each.exactness for each in came.resumed} == came.exactness == {generation_pb2.EXACTNESS_EXACT}
            assert came.output == expected.output, (name, kind, seed, number)
            counts["exact"] += 1
            counts[kind] += 1
            gaps_s.extend(came.gaps_s)

    async with cluster(tmp_path) as (_, client):
        noise = await asyncio.to_thread(random_weights, tmp_path / "noise")
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=REPLICAS))
        await client.deployments.create(deployment("noise", path=str(noise), replica_count=REPLICAS))
        async with asyncio.TaskGroup() as group:
            for name, kills in (("demo", KILLS - KILLS // 2), ("noise", KILLS // 2)):
                group.create_task(kill(client, name, kills))
    assert counts["exact"] == KILLS
    gaps_s.sort()
    tell(
        "ROUNDHOUSE_FAILOVER_RESULTS",
        {
            "seed": SEED,
            **counts,
            "median_gap_ms": round(1000 * statistics.median(gaps_s), 1),
            "longest_gaps_ms": [round(1000 * each, 1) for each in gaps_s[-5:]],
        },
    )
