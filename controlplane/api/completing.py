"""Completes deployments that were stored while there was no node to look up their model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from controlplane import wire
from controlplane.api.sizing import Sizing, put_sized
from controlplane.api.statuses import Statuses
from controlplane.fleet.changes import Marks
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import NodeChange, Registry
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import RoundhouseError

log = structlog.get_logger()

RETRY = Backoff(first_s=1.0, cap_s=30.0)  # the model may be put there at any time; each look may ask the hub
_PATIENT = 5  # looks at the first pace


class Completing:
    """Fills in what `CreateDeployment` could not compute."""

    def __init__(
        self,
        store: Store,
        intent: Intent,
        registry: Registry,
        statuses: Statuses,
        sizing: Sizing,
        hint: Callable[[], None],
    ) -> None:
        self._store, self._intent, self._registry, self._statuses = store, intent, registry, statuses
        self._sizing, self._hint = sizing, hint

    async def run(self) -> None:
        """Completes what is incomplete until cancelled."""
        marks: Marks[str] = Marks()
        pace = _Pace()

        def look(change: NodeChange) -> None:
            if change.after is not None and change.after.is_ready and not (change.before and change.before.is_ready):
                pace.forget()  # it may have what was missing
                marks.mark(change.node)

        with self._intent.changes.to(marks.mark), self._registry.changes.to(look):
            while True:
                incomplete = {
                    deployment: row
                    for deployment, row in self._intent.deployments.rows.items()
                    if not (row.value.HasField("memory_need") or row.value.deployment.HasField("delete_time"))
                }
                for deployment in pace.due(incomplete):
                    row = incomplete[deployment]
                    await self._complete(deployment, row.value, row.revision)
                    pace.tried(deployment)
                await marks.take(pace.wait_s(incomplete))

    async def _complete(self, deployment: str, record: DeploymentRecord, revision: int) -> None:
        key = wire.deployment_key(deployment)
        try:
            sized = await self._sizing.size(record.deployment)
            whole = DeploymentRecord()
            whole.CopyFrom(record)
            put_sized(whole, sized)
            await self._store.commit([Compare(key, revision)], {key: whole.SerializeToString()})
        except RoundhouseError as error:
            self._statuses.explain(deployment, error.message)
            return
        log.info("model looked up", deployment=deployment)
        self._hint()


class _Pace:
    """When each deployment is looked at again."""

    def __init__(self) -> None:
        self._tries: dict[str, tuple[int, float]] = {}  # how many there were, and when the next one is due

    def due(self, incomplete: Collection[str]) -> list[str]:
        """Returns those whose time has come."""
        self._tries = {each: tries for each, tries in self._tries.items() if each in incomplete}
        now_s = asyncio.get_running_loop().time()
        return [each for each in incomplete if self._tries.get(each, (0, now_s))[1] <= now_s]

    def tried(self, deployment: str) -> None:
        """Lets a deployment wait, the longer the oftener."""
        count, now_s = self._tries.get(deployment, (0, 0.0))[0], asyncio.get_running_loop().time()
        self._tries[deployment] = (count + 1, now_s + RETRY.delay_s(max(0, count - _PATIENT)))

    def wait_s(self, incomplete: Collection[str]) -> float | None:
        """Returns how long nothing is due; None if nothing will be."""
        now_s = asyncio.get_running_loop().time()
        return min((max(0.0, self._tries.get(each, (0, now_s))[1] - now_s) for each in incomplete), default=None)

    def forget(self) -> None:
        """Lets all be looked at now."""
        self._tries.clear()
