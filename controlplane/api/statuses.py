"""Keeps the status of every deployment and replica up to date: what clients read and watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from controlplane import lifecycle, wire
from controlplane.fleet.changes import Changes, Marks
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import NodeChange, Registry
from controlplane.lifecycle import Rolling, Sighting
from controlplane.model import NodeId, Placement, Unplaced
from controlplane.placement.evictions import FROZEN, Held
from controlplane.placement.standing import missing_indexes
from controlplane.rolling import Progress, parts, progress
from controlplane.store.cursors import format_cursor
from roundhouse.internal.v1.store_pb2 import ROLLOUT_STATE_RUNNING, DeploymentRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.pace import Pace
from roundhouse.kit.urls import redacted
from roundhouse.v1 import node_pb2
from roundhouse.v1.deployment_pb2 import REPLICA_STATE_READY, Deployment, Replica

log = structlog.get_logger()

# Every report of a busy engine changes the status of its replica, and each refresh looks at all of the deployment. Who
# asks for a status gets the newest at once; only watches wait.
_PACE = Pace(most_fraction=0.05, cap_s=1.0)
_NOT_LOOKED_UP = "its model has not been looked up yet, because no node was connected"


class Outcome(Protocol):
    """What the reconciler came to last."""

    @property
    def unplaced(self) -> Mapping[tuple[str, int], Unplaced]:
        """Replicas without a place, by bare deployment id and index."""

    @property
    def observed(self) -> Mapping[str, int]:
        """Generations acted upon, by uid of the deployment."""

    @property
    def held(self) -> Mapping[NodeId, Held]:
        """Nodes that do not report, and why nothing is moved off them."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The outcome before the first round."""

    unplaced: Mapping[tuple[str, int], Unplaced]
    observed: Mapping[str, int]
    held: Mapping[NodeId, Held] = field(default_factory=dict)


# What a placed replica is shown by; the first is the generation of the deployment, while there is no engine.
Basis = tuple[int, Placement, Sighting]


@dataclass(frozen=True, slots=True)
class Status:
    """A deployment and all its replicas, by index, also those that are being stopped."""

    deployment: Deployment
    replicas: tuple[Replica, ...]
    basis: Mapping[str, Basis] = field(default_factory=dict, compare=False)  # of each placed replica, by its name


class Statuses:
    """Statuses by bare deployment id, computed anew when something they depend on has changed."""

    def __init__(self, intent: Intent, registry: Registry, *, epoch: str, clock: Clock) -> None:
        self._intent, self._registry, self._epoch, self._clock = intent, registry, epoch, clock
        self._outcome: Outcome = Nothing({}, {})
        self._problems: dict[str, str] = {}
        self._known: dict[str, Status] = {}
        self._stale: Marks[str] = Marks()
        self._drifted: set[str] = set()  # of which numbers have changed since, while nobody followed them
        self.changes: Changes[str] = Changes()  # bare ids of deployments that are shown differently now
        self.turns: Changes[str] = Changes()  # the same, for who can do without numbers that nobody else follows

    def get(self, deployment: str) -> Status | None:
        """Returns the present status; None if there is no such deployment."""
        if self._stale.forget(deployment) or deployment in self._drifted or deployment not in self._known:
            self._refresh(deployment)
        return self._known.get(deployment)

    def last(self, deployment: str) -> Status | None:
        """Returns the status that was told last. Who is told of each asks for this: a newer one costs as much again."""
        return self._known.get(deployment)

    def ids(self) -> Sequence[str]:
        """Returns the bare ids of all deployments, in order."""
        return sorted(self._intent.deployments.rows)

    def preview(self, deployment: str, record: DeploymentRecord) -> Deployment:
        """Returns the deployment as it would be shown if `record` were stored."""
        return self._tell(deployment, record, self._known.get(deployment)).deployment

    def unreachable(self) -> Iterator[str]:
        """Yields the names of nodes on which something is placed and that do not report."""
        for node in sorted(self._intent.placed_nodes()):
            if self._node_state(node) != node_pb2.NODE_STATE_READY:
                yield wire.NODE.format(node)

    def explain(self, deployment: str, problem: str) -> None:
        """Notes why the model of a deployment could not be looked up."""
        if self._problems.get(deployment) != problem:
            self._problems[deployment] = problem
            self._stale.mark(deployment)

    async def run(self, outcomes: Callable[[], AsyncIterator[Outcome]]) -> None:
        """Keeps all statuses up to date until cancelled; `outcomes` gives what the reconciler comes to."""
        with self._intent.changes.to(self._stale.mark), self._registry.changes.to(self._mark_node):
            for deployment in self._intent.deployments.rows:
                self._stale.mark(deployment)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(outcomes()), name="follow outcomes")
                group.create_task(self._refresh_stale(), name="refresh statuses")

    async def _refresh_stale(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            deployments = await self._stale.take()
            begin_s = now_s()
            for deployment in deployments:
                self._refresh(deployment)
            await asyncio.sleep(_PACE.rest_s(now_s() - begin_s))

    async def _follow(self, outcomes: AsyncIterator[Outcome]) -> None:
        async for outcome in outcomes:
            before, self._outcome = self._outcome, outcome
            changed = {deployment for (deployment, _), _ in before.unplaced.items() ^ outcome.unplaced.items()}
            for node, _ in before.held.items() ^ outcome.held.items():
                changed |= {each.deployment for each in self._intent.placements_on(node)}
            for deployment, row in self._intent.deployments.rows.items():
                uid = row.value.deployment.uid
                if deployment in changed or before.observed.get(uid) != outcome.observed.get(uid):
                    self._stale.mark(deployment)

    def _mark_node(self, change: NodeChange) -> None:
        for placement in self._intent.placements_on(change.node):
            # When a state began is told by when it was first seen: somebody must look. Numbers can wait for a reader.
            if change.transforms(placement) or (self.changes.has_listeners and change.moves(placement)):
                self._stale.mark(placement.deployment)
            elif change.moves(placement):
                self._drifted.add(placement.deployment)

    def _refresh(self, deployment: str) -> None:
        self._drifted.discard(deployment)
        before, row = self._known.get(deployment), self._intent.deployments.rows.get(deployment)
        if row is None:
            self._problems.pop(deployment, None)
            if self._known.pop(deployment, None) is not None:
                self._told(deployment)
            return
        after = self._tell(deployment, row.value, before)
        if after != before:
            self._known[deployment] = after
            self._told(deployment)

    def _told(self, deployment: str) -> None:
        self.changes.tell(deployment)
        self.turns.tell(deployment)

    def _tell(self, deployment: str, record: DeploymentRecord, before: Status | None) -> Status:
        """Returns the status; what is wanted and placed alone, as UNKNOWN, if a fault of ours keeps it from us."""
        wanted = Deployment()
        wanted.CopyFrom(record.deployment)
        wanted.etag = etag(self._epoch, wanted)
        if wanted.virtual_env.index_url:
            wanted.virtual_env.index_url = redacted(wanted.virtual_env.index_url)
        if record.HasField("memory_need"):
            wanted.memory_need.CopyFrom(record.memory_need)
            wanted.computed_options.CopyFrom(record.engine_spec.computed)
            wanted.computed_options.ClearField("arguments")  # of the catalog, and long
        try:
            return self._compute(deployment, record, wanted, before)
        except Exception as error:
            # Raised, it would end every list and every watch, and this process at each of its starts.
            log.error("status cannot be told", deployment=deployment, error=str(error), exc_info=error)
            placed = self._placed(self._own(deployment, wanted.uid)).values()
            whole, replicas = lifecycle.untold(wanted, list(placed), now_s=self._clock.now())
            return Status(whole, tuple(replicas))

    def _compute(self, deployment: str, record: DeploymentRecord, wanted: Deployment, before: Status | None) -> Status:
        now_s = self._clock.now()
        earlier = {each.name: each for each in before.replicas} if before is not None else {}
        replicas, basis = [], {}
        own = self._own(deployment, wanted.uid)
        placed = self._placed(own)
        count = 0 if wanted.HasField("delete_time") else wanted.replica_count
        standing = {index for index, each in placed.items() if not each.is_stopping}
        missing = missing_indexes(count, standing)
        for index in sorted({*missing, *placed}):
            name = f"{wanted.name}/replicas/{index}"
            shown = earlier.get(name)
            if index in placed:
                seen = self._seen(placed[index])
                # What an engine runs it says itself; so a replica that has one is shown as before when all is scaled.
                basis[name] = (wanted.generation if seen.engine is None else 0, placed[index], seen)
                if shown is None or before is None or before.basis.get(name) != basis[name]:
                    shown = lifecycle.placed_replica(wanted, placed[index], seen, before=shown, now_s=now_s)
            else:
                reason = self._reason(deployment, index, record)
                shown = lifecycle.pending_replica(wanted, index, reason, before=shown, now_s=now_s)
            replicas.append(shown)
        kept = {*sorted(standing)[:count], *missing}
        whole = lifecycle.deployment(
            wanted,
            [each for each in replicas if lifecycle.index_of(each) in kept],
            self._rolling(deployment, record, own, missing),
            observed=self._outcome.observed.get(wanted.uid, 0),
            before=before.deployment if before is not None else None,
            now_s=now_s,
        )
        return Status(whole, tuple(replicas), basis)

    def spec_generations(self, deployment: str, uid: str) -> set[int]:
        """Returns what the replicas of a deployment run, those that are stopping too."""
        return {each.spec_generation for each in self._own(deployment, uid)}

    def serves_spec(self, deployment: str, uid: str, spec_generation: int) -> bool:
        """Tells whether a replica that runs this is READY."""
        return any(
            each.spec_generation == spec_generation and self._serves(each) for each in self._own(deployment, uid)
        )

    def progress(self, deployment: str, record: DeploymentRecord) -> Progress:
        """Returns how far the replicas of a deployment are with what they are to run."""
        known, own = self._registry.known, self._own(deployment, record.deployment.uid)
        return progress(record.deployment.replica_count, record.spec_generation, parts(own, known))

    def _rolling(
        self, deployment: str, record: DeploymentRecord, own: Sequence[Placement], missing: Collection[int]
    ) -> Rolling:
        is_steady = all(each.spec_generation == record.spec_generation or each.is_stopping for each in own)
        if is_steady and record.rollout.state != ROLLOUT_STATE_RUNNING:
            return Rolling(record.rollout)
        found = progress(record.deployment.replica_count, record.spec_generation, parts(own, self._registry.known))
        lacks = (self._outcome.unplaced.get((deployment, index)) for index in sorted(found.outdated))
        return Rolling(
            record.rollout,
            found,
            lack=next((each.reason for each in lacks if each is not None and not each.waits_its_turn), ""),
            is_settling=bool(missing) or any(each.is_stopping for each in own),
        )

    def _own(self, deployment: str, uid: str) -> list[Placement]:
        return [each for each in self._intent.placements_of(deployment) if each.deployment_uid == uid]

    def _placed(self, own: Sequence[Placement]) -> dict[int, Placement]:
        """Returns the placement by which each index is shown: where it serves while it is moved, else the newest."""
        if len({each.index for each in own}) == len(own):
            return {each.index: each for each in own}
        ranked = sorted(own, key=lambda each: (not each.is_stopping, self._serves(each), each.epoch))
        return {each.index: each for each in ranked}

    def _serves(self, placement: Placement) -> bool:
        known = self._registry.known.get(placement.node)
        engine = known.engines.get(placement.replica_uid) if known is not None and known.is_ready else None
        return engine is not None and engine.state == REPLICA_STATE_READY

    def _seen(self, placement: Placement) -> Sighting:
        known, stays = self._registry.known.get(placement.node), self._stays(placement)
        if known is None:
            return Sighting(node_pb2.NODE_STATE_UNKNOWN, stays=stays)
        return Sighting(
            node_state=self._node_state(placement.node),
            engine=known.engines.get(placement.replica_uid),
            refusal=known.refusals.get(placement.replica_uid, ""),
            gpu_indexes={each: known.gpu_indexes[each] for each in placement.gpus if each in known.gpu_indexes},
            stays=stays,
        )

    def _stays(self, placement: Placement) -> str:
        held = self._outcome.held.get(placement.node)
        if held is not None and held.reason == FROZEN:
            return f'node "{placement.node}" does not report; {held.message}'
        unplaced = self._outcome.unplaced.get((placement.deployment, placement.index))
        return "" if unplaced is None else unplaced.reason

    def _node_state(self, node: str) -> node_pb2.NodeState:
        known = self._registry.known.get(node)
        if known is None:
            return node_pb2.NODE_STATE_UNKNOWN
        return known.state

    def _reason(self, deployment: str, index: int, record: DeploymentRecord) -> str:
        if not record.HasField("memory_need"):
            return self._problems.get(deployment, _NOT_LOOKED_UP)
        unplaced = self._outcome.unplaced.get((deployment, index))
        return "" if unplaced is None else unplaced.reason


def etag(epoch: str, wanted: Deployment) -> str:
    """Returns the version of what is wanted of a deployment."""
    return format_cursor(epoch, "etag", wanted.generation, wanted.uid)
