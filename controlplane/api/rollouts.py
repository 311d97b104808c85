"""Follows the replacement of replicas: says when it is done, and takes a change back that does not work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from controlplane import wire
from controlplane.api.masks import OF_ENGINES, merge
from controlplane.api.records import retired, unproven
from controlplane.api.statuses import Statuses
from controlplane.fleet.changes import Marks
from controlplane.fleet.intent import Intent
from controlplane.rolling import Progress
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import (
    ROLLOUT_STATE_DONE,
    ROLLOUT_STATE_ROLLED_BACK,
    ROLLOUT_STATE_RUNNING,
    DeploymentRecord,
    RetiredSpec,
    Rollout,
)
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import RoundhouseError
from roundhouse.kit.times import from_duration, to_timestamp

log = structlog.get_logger()

PERIOD_S = 1.0  # between two looks at those of which nothing is heard
GATHER_S = 0.1


@dataclass(frozen=True, slots=True)
class _Best:
    """The most that a rollout has come to, and since when."""

    spec_generation: int
    updated_count: int
    since_s: float


class Rollouts:
    """The loop. What it cannot write now it writes at the next look."""

    def __init__(
        self, store: Store, intent: Intent, statuses: Statuses, clock: Clock, hint: Callable[[], None]
    ) -> None:
        self._store, self._intent, self._statuses = store, intent, statuses
        self._clock, self._hint = clock, hint
        self._best: dict[str, _Best] = {}  # by bare deployment id

    async def run(self) -> None:
        """Looks until cancelled."""
        marks: Marks[str] = Marks()
        with self._intent.changes.to(marks.mark), self._statuses.turns.to(marks.mark):
            while True:
                rows = self._intent.deployments.rows
                open_ones = [deployment for deployment, row in rows.items() if _is_open(row.value)]
                self._best = {each: best for each, best in self._best.items() if each in open_ones}
                for deployment in open_ones:
                    row = rows.get(deployment)  # it may have gone while another was written
                    if row is not None and _is_open(row.value):
                        await self._look(deployment, row.value, row.revision)
                await marks.take(PERIOD_S if open_ones else None)
                await asyncio.sleep(GATHER_S)

    async def _look(self, deployment: str, record: DeploymentRecord, revision: int) -> None:
        after = DeploymentRecord()
        after.CopyFrom(record)
        running = self._statuses.spec_generations(deployment, record.deployment.uid)
        if record.rollout.state == ROLLOUT_STATE_RUNNING:
            self._advance(deployment, after)
        if after.rollout.state != ROLLOUT_STATE_RUNNING:
            _forget_retired(after, running)
        if after == record:
            return
        key = wire.deployment_key(deployment)
        try:
            await self._store.commit([Compare(key, revision)], {key: after.SerializeToString()}, ())
        except RoundhouseError as error:
            log.debug("rollout not written", deployment=deployment, error=error.message)
            return
        if after.rollout.state != record.rollout.state:
            self._tell(deployment, after)
        self._hint()

    def _advance(self, deployment: str, record: DeploymentRecord) -> None:
        progress = self._statuses.progress(deployment, record)
        if progress.is_done:
            record.rollout.state = ROLLOUT_STATE_DONE
            return
        target = next((each for each in record.retired if each.is_proven), None)
        why = progress.failure or self._overdue(deployment, record, progress)
        if why and target is not None:
            _roll_back(record, target, why)
            record.deployment.update_time.CopyFrom(to_timestamp(self._clock.now()))

    def _overdue(self, deployment: str, record: DeploymentRecord, progress: Progress) -> str:
        """Returns why a rollout takes too long; empty if it does not."""
        if not progress.trouble:
            # Nothing new is there yet: there is no room, or what it replaces is still finishing what it has.
            self._best.pop(deployment, None)
            return ""
        now_s, best = self._clock.monotonic(), self._best.get(deployment)
        is_same = best is not None and best.spec_generation == record.spec_generation
        if best is None or not is_same or progress.updated_count > best.updated_count:
            best = self._best[deployment] = _Best(record.spec_generation, progress.updated_count, now_s)
        policy = record.deployment.rollout
        deadline_s = (
            from_duration(policy.progress_deadline)
            if policy.HasField("progress_deadline")
            else wire.PROGRESS_DEADLINE_S
        )
        if now_s - best.since_s < deadline_s:
            return ""
        return f"no further replica was READY within {deadline_s:g} s; {progress.trouble}"

    def _tell(self, deployment: str, record: DeploymentRecord) -> None:
        rollout: Rollout = record.rollout
        if rollout.state == ROLLOUT_STATE_ROLLED_BACK:
            log.warning("rolled back", deployment=deployment, reason=rollout.message)
        else:
            log.info("rolled out", deployment=deployment, generation=record.spec_generation)


def _is_open(record: DeploymentRecord) -> bool:
    if record.deployment.HasField("delete_time"):
        return False
    return record.rollout.state == ROLLOUT_STATE_RUNNING or bool(record.retired)


def _forget_retired(record: DeploymentRecord, running: set[int]) -> None:
    """Forgets what no replica runs any more, as soon as there is nothing to go back to."""
    kept = [each for each in record.retired if each.spec_generation in running]
    if len(kept) < len(record.retired) or any(each.is_proven for each in kept):
        del record.retired[:]
        record.retired.extend(map(unproven, kept))


def _roll_back(record: DeploymentRecord, target: RetiredSpec, why: str) -> None:
    """Makes what was wanted before what is wanted again; how many, labels and the like stay as they are."""
    failed = retired(record, is_proven=False)
    others = [each for each in record.retired if each.spec_generation != target.spec_generation]
    message = f"generation {record.spec_generation} was taken back to {target.spec_generation or 1}: {why}"
    restored = RetiredSpec()
    restored.CopyFrom(target)
    merge(restored.deployment, record.deployment, OF_ENGINES)
    record.deployment.ClearField("resolved_repository")
    if restored.deployment.HasField("resolved_repository"):
        record.deployment.resolved_repository.CopyFrom(restored.deployment.resolved_repository)
    record.deployment.generation += 1
    record.spec_generation = restored.spec_generation
    record.engine_spec.CopyFrom(restored.engine_spec)
    record.memory_need.CopyFrom(restored.memory_need)
    del record.sealed_env[:]
    record.sealed_env.extend(restored.sealed_env)
    kept = [*others, failed]
    del record.retired[:]
    record.retired.extend(kept)
    record.rollout.state = ROLLOUT_STATE_ROLLED_BACK
    record.rollout.message = message
