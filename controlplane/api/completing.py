"""Completes deployments that were stored while there was no node to look up their model."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from controlplane import wire
from controlplane.api.sizing import Sizing
from controlplane.api.statuses import Statuses
from controlplane.fleet.changes import Marks
from controlplane.fleet.intent import Intent
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import RoundhouseError

log = structlog.get_logger()

RETRY_S = 1.0  # a node may join, or the model may be put there, at any time


class Completing:
    """Fills in what `CreateDeployment` could not compute."""

    def __init__(
        self, store: Store, intent: Intent, statuses: Statuses, sizing: Sizing, hint: Callable[[], None]
    ) -> None:
        self._store, self._intent, self._statuses = store, intent, statuses
        self._sizing, self._hint = sizing, hint

    async def run(self) -> None:
        """Completes what is incomplete until cancelled."""
        marks: Marks[str] = Marks()
        with self._intent.changes.to(marks.mark):
            while True:
                incomplete = [
                    (deployment, row.value, row.revision)
                    for deployment, row in self._intent.deployments.rows.items()
                    if not (row.value.HasField("memory_need") or row.value.deployment.HasField("delete_time"))
                ]
                for deployment, record, revision in incomplete:
                    await self._complete(deployment, record, revision)
                await marks.take(RETRY_S if incomplete else None)

    async def _complete(self, deployment: str, record: DeploymentRecord, revision: int) -> None:
        key = wire.deployment_key(deployment)
        try:
            sized = await self._sizing.size(record.deployment)
            whole = DeploymentRecord(
                deployment=record.deployment,
                engine_spec=sized.spec,
                memory_need=wire.memory_need(sized.need),
                sealed_env=record.sealed_env,
            )
            whole.engine_spec.sealed_env.extend(record.sealed_env)
            whole.deployment.placement.gpus_per_replica = sized.gpus_per_replica
            if sized.repository is not None:
                whole.deployment.resolved_repository.CopyFrom(sized.repository)
            await self._store.commit([Compare(key, revision)], {key: whole.SerializeToString()})
        except RoundhouseError as error:
            self._statuses.explain(deployment, error.message)
            return
        log.info("model looked up", deployment=deployment)
        self._hint()
