"""A client that watches all nodes, in a process of its own, and tells how old is what it sees.

Reports are stamped by the agents just before they are sent, with the clock of this same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator

from benchmarks.support.fleet_child import Answer, answer
from benchmarks.support.metrics import percentile
from roundhouse.client.client import Client
from roundhouse.kit.times import from_timestamp
from roundhouse.v1.node_service_pb2 import NodeEvent


class Watcher:
    """Watches when it is asked to."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def watch(self, settle_s: float, watch_s: float) -> Answer:
        """Watches, at first for `settle_s` without measuring, as the first listing is a load of its own."""
        ages_s: list[float] = []
        nodes: set[str] = set()
        cpu_s, begin_s = 0.0, time.monotonic() + settle_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settle_s + watch_s):
                async for event in self._events():
                    if time.monotonic() < begin_s:
                        cpu_s = time.process_time()
                        continue
                    ages_s.append(time.time() - from_timestamp(event.changed.gpus[0].sample_time))
                    nodes.add(event.changed.name)
        return {
            "event_count": len(ages_s),
            "node_count": len(nodes),
            "watch_s": watch_s,
            "cpu_s": time.process_time() - cpu_s,
            **{f"p{percent}_s": percentile(ages_s, percent) for percent in (50, 90, 99, 100)},
        }

    async def _events(self) -> AsyncIterator[NodeEvent]:
        async with self._client.nodes.watch() as events:
            async for event in events:
                if event.HasField("changed"):
                    yield event


async def _main(address: str) -> None:
    async with Client(address) as client:
        await answer({"watch": Watcher(client).watch})


if __name__ == "__main__":
    asyncio.run(_main(**json.loads(sys.argv[1])))
