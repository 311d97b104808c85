"""Streams deployments and replicas as they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane import wire
from controlplane.api.statuses import Statuses
from controlplane.api.watching import Cursors, stream
from controlplane.fleet.changes import Marks
from controlplane.fleet.intent import Intent
from controlplane.store.cursors import format_cursor, parse_cursor
from controlplane.store.protocol import Store
from roundhouse.v1.deployment_pb2 import Deployment, Replica
from roundhouse.v1.deployment_service_pb2 import (
    DeploymentEvent,
    ReplicaEvent,
    WatchDeploymentsResponse,
    WatchReplicasResponse,
)
from roundhouse.v1.watch_pb2 import Bookmark

CURSOR = "deployments"


class Watches:
    """Serves `WatchDeployments` and `WatchReplicas`."""

    def __init__(self, store: Store, intent: Intent, statuses: Statuses) -> None:
        self._store, self._intent, self._statuses = store, intent, statuses

    async def deployments(self, cursor: str, context: Any) -> None:
        """Streams all deployments, and before them what was deleted behind `cursor`."""
        marks: Marks[str] = Marks()
        sent: dict[str, Deployment] = {}

        def look(deployments: Sequence[str]) -> list[DeploymentEvent]:
            events = []
            for deployment in deployments:
                status, before = self._statuses.get(deployment), sent.pop(deployment, None)
                if status is not None:
                    sent[deployment] = status.deployment
                    if status.deployment != before:
                        events.append(DeploymentEvent(changed=status.deployment))
                elif before is not None:
                    events.append(_deleted(deployment))
            return events

        # Intent is followed too: a cursor names the revision that it has reached, so whatever it knows must be told.
        with self._statuses.changes.to(marks.mark), self._intent.changes.to(marks.mark):
            gone = await self._deleted_since(cursor) if cursor else []
            marks.take_now()
            present = self._statuses.ids()
            first = [_deleted(each) for each in gone if each not in self._intent.deployments.rows]
            cursors = Cursors(cursor or self._now(), self._now)
            await stream(
                context,
                first=cursors.put_on([*first, *look(present)]),
                marks=marks,
                look=lambda deployments: cursors.put_on(look(deployments)),
                bookmark=lambda: DeploymentEvent(bookmark=Bookmark(), cursor=self._now()),
                message=lambda events: WatchDeploymentsResponse(events=events),
            )

    async def replicas(self, deployment: str | None, context: Any) -> None:
        """Streams the replicas of one deployment, or of all."""
        marks: Marks[str] = Marks()
        sent: dict[str, dict[str, Replica]] = {}

        def mark(changed: str) -> None:
            if deployment is None or changed == deployment:
                marks.mark(changed)

        def look(deployments: Sequence[str]) -> list[ReplicaEvent]:
            events = []
            for each in deployments:
                status, before = self._statuses.get(each), sent.pop(each, {})
                after = {} if status is None else {replica.name: replica for replica in status.replicas}
                events += [ReplicaEvent(deleted=name) for name in before if name not in after]
                events += [ReplicaEvent(changed=now) for name, now in after.items() if before.get(name) != now]
                if after:
                    sent[each] = after
            return events

        with self._statuses.changes.to(mark):
            present = self._statuses.ids() if deployment is None else [deployment]
            await stream(
                context,
                first=look(present),
                marks=marks,
                look=look,
                bookmark=lambda: ReplicaEvent(bookmark=Bookmark()),
                message=lambda events: WatchReplicasResponse(events=events),
            )

    @property
    def revision(self) -> int:
        """The revision of the store that is known of deployments now."""
        return self._intent.deployments.revision

    def cursor(self, revision: int) -> str:
        """Returns the cursor of what was known of deployments at a revision."""
        return format_cursor(self._store.epoch, CURSOR, revision)

    def _now(self) -> str:
        return self.cursor(self.revision)

    async def _deleted_since(self, cursor: str) -> list[str]:
        """Returns the bare ids of what was deleted behind a cursor; raises TooLong (RELIST) if that is not known."""
        deleted: list[str] = []
        revision = parse_cursor(self._store.epoch, CURSOR, cursor).revision
        async for batch in self._store.watch(wire.DEPLOYMENTS, revision):
            gone = [each.key for each in batch.changes if each.entry is None]
            deleted += [each.removeprefix(wire.DEPLOYMENTS) for each in gone]
            if batch.revision >= self.revision:  # which may have gone on since the store was asked
                break
        return deleted


def _deleted(deployment: str) -> DeploymentEvent:
    return DeploymentEvent(deleted=wire.DEPLOYMENT.format(deployment))
