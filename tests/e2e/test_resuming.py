"""Connections are cut, gateways are killed, and engines with them: the SDK's callers see what they would have seen.

10 accidents here. ROUNDHOUSE_RESUMING_ROUNDS says how many, ROUNDHOUSE_RESUMING_SEED which.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from roundhouse.client import Client, Generation, deployment
from roundhouse.v1 import generation_pb2
from tests.support.cluster import Cluster, cluster
from tests.support.tcp_proxy import TcpProxy
from tests.support.undisturbed import KINDS, PROMPT, Came, options, read, reading

ROUNDS = int(os.environ.get("ROUNDHOUSE_RESUMING_ROUNDS", "10"))
SEED = int(os.environ.get("ROUNDHOUSE_RESUMING_SEED", "1"))
ACCIDENTS = ("cuts", "gateway", "gateway and engine")
PATIENCE_S = 180.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 30 * ROUNDS)]


async def disturbed(it: Cluster, client: Client, generation: Generation, accident: str, at: int, gateway: str) -> Came:
    """Reads a request; once it has told so many tokens its gateway is killed, and its engine if that is wanted."""
    pids = {each.name: each.engine_pid for each in (await client.replicas.list("demo")).replicas}
    came, has_happened = Came(), False
    async for _ in reading(generation, came):
        if accident == "cuts" or has_happened or came.told_count < at:
            continue
        has_happened = True
        it.kill(gateway)
        if accident == "gateway and engine":
            assert generation.started is not None
            os.kill(pids[generation.started.replica], signal.SIGKILL)
    return came


async def test_whatever_breaks_between_caller_and_engine_nothing_is_lost_doubled_or_reordered(tmp_path: Path) -> None:
    draws = random.Random(SEED)
    counts: Counter[str] = Counter()
    async with cluster(tmp_path) as (it, direct):
        await direct.deployments.create(deployment("demo", builtin="demo", replica_count=2))
        await direct.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
        spare, killed = await it.start_gateway("spare"), 0
        first = await it.start_gateway(f"gateway-{killed}")
        for number in range(ROUNDS):
            accident, kind, seed = draws.choice(ACCIDENTS), draws.choice(list(KINDS)), draws.randrange(100)
            expected = await read(direct.generate("demo", PROMPT, **options(kind, seed)))
            at = draws.randrange(1, max(2, expected.told_count * 3 // 4))
            async with TcpProxy(first).serving() as proxy:
                proxy.limits.extend(draws.randrange(100, 4000) for _ in range(3))
                async with Client(proxy.address if accident == "cuts" else [first, spare]) as client:
                    asked = options(kind, seed)
                    asked["timeout_s"] = PATIENCE_S
                    generation = client.generate("demo", PROMPT, **asked)
                    came = await disturbed(it, direct, generation, accident, at, f"gateway-{killed}")
            assert came.output == expected.output, (number, accident, kind, seed)
            assert came.exactness == {generation_pb2.EXACTNESS_EXACT}
            counts[accident] += 1
            counts["resumed"] += bool(came.resumed)
            if accident != "cuts":
                killed += 1
                first = await it.start_gateway(f"gateway-{killed}")
                await direct.deployments.wait_ready("demo", timeout_s=PATIENCE_S)
    print(dict(counts))
    assert 0 < counts["resumed"] <= counts["gateway and engine"]
