"""The agents of a simulated fleet, in one process: real `Join` streams, a connection for each, staggered reports.

Reports are due at fixed times, whatever happened before; how late they were made says whether this process is the
bottleneck. What an assignment changes is reported at once, as an agent does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc

from benchmarks.support.fleet_child import Answer, answer
from benchmarks.support.fleet_reports import SimulatedNode
from benchmarks.support.metrics import percentile
from roundhouse.internal.v1.agent_service_pb2 import JoinResponse
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.latest import Latest

BURST_S = 0.05  # that of an agent: changes within this time travel in one report
# Channels to one address share a connection unless they are told not to.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
_JOIN = "/roundhouse.internal.v1.AgentService/Join"  # without a stub, which would want messages, not bytes
_JOINING = 32  # agents that call at the same time: a fleet does not start in one moment


class Agents:
    """All agents, and what they came to."""

    def __init__(self, nodes: list[SimulatedNode], *, period_s: float) -> None:
        self._nodes, self._period_s = nodes, period_s
        self._changed = Latest(None)
        self._joined_count = 0
        self._running_count = 0  # engines, on all nodes
        self._report_count = 0
        self._assignment_count = 0
        self._sent_bytes = 0
        self._late_s: list[float] = []
        self._are_engines_busy = False
        self._joining = asyncio.Semaphore(_JOINING)

    async def joined(self) -> Answer:
        """Waits until every agent has its first assignment."""
        return await self._when(lambda: self._joined_count == len(self._nodes))

    async def assigned(self, count: int) -> Answer:
        """Waits until exactly `count` engines are assigned, and run; returns when that was."""
        return await self._when(lambda: self._running_count == count)

    async def busy(self, are_busy: bool) -> Answer:
        """Lets engines report another load each time, or the same."""
        self._are_engines_busy = are_busy
        return {}

    async def totals(self) -> Answer:
        """Returns what was done since the start, and how late reports were since the last time this was asked."""
        late_s, self._late_s = self._late_s, []
        return {
            "cpu_s": time.process_time(),
            "report_count": self._report_count,
            "assignment_count": self._assignment_count,
            "sent_bytes": self._sent_bytes,
            "late_p50_s": percentile(late_s, 50),
            "late_p99_s": percentile(late_s, 99),
        }

    async def run(self, address: str) -> None:
        """Keeps all agents connected until cancelled; one that is turned away ends all."""
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, node in enumerate(self._nodes):
                first_s = start_s + self._period_s * number / len(self._nodes)
                group.create_task(self._agent(node, address, first_s), name=node.node_id)

    async def _agent(self, node: SimulatedNode, address: str, first_s: float) -> None:
        hint = asyncio.Event()
        await self._joining.acquire()
        async with open_channel(address, options=_OWN_CONNECTION) as channel:
            call: Any = channel.stream_stream(_JOIN, response_deserializer=JoinResponse.FromString)()
            async with cancelling(call), asyncio.TaskGroup() as group:
                group.create_task(self._send(node, call, hint, first_s))
                group.create_task(self._receive(node, call, hint))

    async def _send(self, node: SimulatedNode, call: Any, hint: asyncio.Event, due_s: float) -> None:
        number = 0
        while True:
            raw = node.report(time.time(), number, are_engines_busy=self._are_engines_busy)
            await call.write(raw)
            number += 1
            self._report_count += 1
            self._sent_bytes += len(raw)
            await asyncio.sleep(BURST_S)
            while due_s <= time.monotonic():
                due_s += self._period_s
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + due_s - time.monotonic()):
                    await hint.wait()
            except TimeoutError:
                self._late_s.append(time.monotonic() - due_s)
            hint.clear()

    async def _receive(self, node: SimulatedNode, call: Any, hint: asyncio.Event) -> None:
        is_first = True
        while (assignment := await call.read()) is not grpc.aio.EOF:
            self._assignment_count += 1
            self._running_count -= node.running_count
            if node.take(assignment):
                hint.set()
            self._running_count += node.running_count
            if is_first:
                is_first = False
                self._joined_count += 1
                self._joining.release()
            self._changed.set(None)
        raise ConnectionError(f"the control plane ended the session of {node.node_id}: {await call.details()}")

    async def _when(self, holds: Callable[[], bool]) -> Answer:
        async for _ in self._changed.watch():
            if holds():
                break
        return {"at_s": time.monotonic()}


async def _main(address: str, agent_count: int, gpu_count: int, period_s: float) -> None:
    agents = Agents([SimulatedNode(number, gpu_count=gpu_count) for number in range(agent_count)], period_s=period_s)
    running = asyncio.create_task(agents.run(address), name="agents")
    answering = asyncio.create_task(
        answer({each.__name__: each for each in (agents.joined, agents.assigned, agents.busy, agents.totals)}),
        name="answers",
    )
    done, _ = await asyncio.wait({running, answering}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    answering.cancel()
    await asyncio.gather(running, answering, return_exceptions=True)
    for each in done:
        each.result()


if __name__ == "__main__":
    asyncio.run(_main(**json.loads(sys.argv[1])))
