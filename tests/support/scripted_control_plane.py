"""A control plane that plays a script: it takes reports over real gRPC and assigns what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.kit.errors import RoundhouseError
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import ModelSource

PATIENCE_S = 90.0  # two cores, shared


class ScriptedControlPlane:
    """Serves `AgentService`. `report` is the last that came."""

    def __init__(self) -> None:
        self.report: Latest[wire.JoinRequest | None] = Latest(None)
        self.session_count = Latest(0)
        self.refuses_with: RoundhouseError | None = None
        self.hangs_up_after_first = False
        self.address = ""
        self._generation = 0
        self._assignment: Latest[wire.JoinResponse] = Latest(self._response())

    async def Join(self, reports: Any, context: Any) -> None:
        self.session_count.set(self.session_count.get() + 1)
        if self.refuses_with is not None:
            raise self.refuses_with
        reading = asyncio.create_task(self._read(reports))
        try:
            async for each in self._assignment.watch():
                await context.write(each)
                if self.hangs_up_after_first:
                    return
        finally:
            reading.cancel()

    async def _read(self, reports: Any) -> None:
        async for each in reports:
            self.report.set(each)

    def assign(self, *engines: wire.EngineAssignment, probes: Sequence[ModelSource] = (), term: int = 1) -> None:
        """Sends the next assignment to whoever is connected, and first to whoever connects later."""
        self._generation += 1
        self._assignment.set(self._response(*engines, probes=probes, term=term))

    def send(self, response: wire.JoinResponse) -> None:
        """Sends something that no control plane should."""
        self._assignment.set(response)

    def _response(
        self, *engines: wire.EngineAssignment, probes: Sequence[ModelSource] = (), term: int = 1
    ) -> wire.JoinResponse:
        order = wire.Order(cluster_id="cluster", term=term, generation=self._generation)
        return wire.JoinResponse(protocol_version=1, order=order, engines=engines, model_probes=probes)

    @contextlib.asynccontextmanager
    async def serving(self, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
        """Serves for the block and yields the address; leaving hangs up at once."""
        service = Service(wire.DESCRIPTOR.services_by_name["AgentService"], self)
        async with serve(Listen.parse(address), [service], grace_s=0) as server:
            self.address = server.address
            yield server.address

    async def until_sessions(self, count: int) -> None:
        """Waits for so many calls of Join, those that ended included."""
        async with asyncio.timeout(PATIENCE_S):
            async for each in self.session_count.watch():
                if each >= count:
                    return

    async def until(self, holds: Callable[[wire.JoinRequest], object]) -> wire.JoinRequest:
        """Waits for a report of which something holds."""
        async with asyncio.timeout(PATIENCE_S):
            async for report in self.report.watch():
                if report is not None and holds(report):
                    return report
        raise AssertionError("a watch never ends")

    async def until_state(self, state: deployment_pb2.ReplicaState, uid: str = "r-1") -> wire.EngineReport:
        """Waits for a report in which a replica is in a state, and returns that part of it."""
        report = await self.until(lambda report: (found := engine_in(report, uid)) and found.state == state)
        found = engine_in(report, uid)
        assert found is not None
        return found


def engine_in(report: wire.JoinRequest, uid: str = "r-1") -> wire.EngineReport | None:
    """Returns what a report says of a replica; None if nothing."""
    return next((each for each in report.engines if each.replica_uid == uid), None)
