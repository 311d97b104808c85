"""Keeps the routes that gateways pick from: which engines serve which deployment, and what proves a call to each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from controlplane.fleet.changes import Marks
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Known, NodeChange, Registry
from controlplane.model import Placement, Route, Routes
from controlplane.routing_policies import DEFAULT_ROUTING_POLICY, RoutingPolicy, canonical_routing_policy
from roundhouse.kit.latest import Latest
from roundhouse.kit.pace import Pace
from roundhouse.v1.deployment_pb2 import REPLICA_STATE_READY, EngineLoad

# Every report of a busy engine changes a route, and each update looks at all replicas of the deployment: a thousand of
# them would do nothing else.
_PACE = Pace(most_fraction=0.05, cap_s=1.0)


class RouteKeeper:
    """Follows intent and reports, and holds the routes that come of them."""

    def __init__(self, intent: Intent, registry: Registry, policy: RoutingPolicy = DEFAULT_ROUTING_POLICY) -> None:
        """`policy` routes the deployments that do not say by which."""
        self._intent, self._registry, self._policy = intent, registry, policy
        self.routes: Latest[Routes] = Latest(Routes({}, is_current=False))

    def count_gateways(self, count: int) -> None:
        """Takes in how many gateways there are, the one in this process among them."""
        self.routes.set(replace(self.routes.get(), gateway_count=count))

    async def run(self) -> None:
        """Keeps `routes` up to date until cancelled."""
        marks: Marks[str] = Marks()
        now_s = asyncio.get_running_loop().time
        with self._intent.changes.to(marks.mark), self._registry.changes.to(lambda change: self._mark(marks, change)):
            deployments = list(self._intent.deployments.rows)
            while True:
                begin_s = now_s()
                self._update(deployments)
                await asyncio.sleep(_PACE.rest_s(now_s() - begin_s))
                deployments = await marks.take()

    def _mark(self, marks: Marks[str], change: NodeChange) -> None:
        for placement in self._intent.placements_on(change.node):
            if change.touches(placement):
                marks.mark(placement.deployment)

    def _update(self, deployments: list[str]) -> None:
        before = self.routes.get()
        replicas, deleting, silent = dict(before.replicas), set(before.deleting), dict(before.silent)
        policies = dict(before.policies)
        for deployment in deployments:
            row = self._intent.deployments.rows.get(deployment)
            replicas.pop(deployment, None)
            deleting.discard(deployment)
            silent.pop(deployment, None)
            policies.pop(deployment, None)
            if row is not None:
                placements = [
                    each
                    for each in self._intent.placements_of(deployment)
                    if each.deployment_uid == row.value.deployment.uid
                ]
                found = (route_to(each, self._registry.known) for each in placements)
                replicas[deployment] = _only_newest_picked([each for each in found if each is not None])
                unheard = [each for each in placements if each.node not in self._registry.known]
                if unheard:
                    silent[deployment] = {each.replica_uid: each.index for each in unheard}
                if row.value.deployment.HasField("delete_time"):
                    deleting.add(deployment)
                policy = canonical_routing_policy(row.value.deployment.routing_policy) or self._policy
                if policy != DEFAULT_ROUTING_POLICY:
                    policies[deployment] = policy
        after = Routes(replicas, frozenset(deleting), silent, policies, gateway_count=before.gateway_count)
        if after != before:
            self.routes.set(after)


def _only_newest_picked(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Returns the routes, of which only the newest that is ready of each replica is picked."""
    newest: dict[int, int] = {}
    for each in routes:
        if each.is_ready:
            newest[each.index] = max(each.epoch, newest.get(each.index, 0))
    return tuple(
        replace(each, is_ready=False) if each.is_ready and each.epoch < newest[each.index] else each for each in routes
    )


def route_to(placement: Placement, nodes: Mapping[str, Known]) -> Route | None:
    """Returns how to call the engine of a placement; None if none is reported for it."""
    known = nodes.get(placement.node)
    report = known.engines.get(placement.replica_uid) if known is not None else None
    if known is None or report is None or not (report.address and report.engine_uuid):
        return None
    is_current = report.placement_epoch == placement.epoch and not placement.is_stopping
    return Route(
        deployment=placement.deployment,
        index=placement.index,
        replica_uid=placement.replica_uid,
        epoch=placement.epoch,
        node=placement.node,
        address=report.address,
        engine_uuid=report.engine_uuid,
        engine_key=report.engine_key,
        is_ready=known.is_ready and is_current and report.state == REPLICA_STATE_READY,
        running_count=report.load.running_count,
        waiting_count=report.load.waiting_count,
        is_stale=not report.HasField("load"),
        used_block_eighths=_used_eighths(report.load),
        fingerprint=report.fingerprint,
        max_running_count=report.load.max_running_count,
        kv_token_count=report.load.kv_token_count,
    )


def _used_eighths(load: EngineLoad) -> int:
    """Returns which share of its KV blocks requests hold, in eighths, rounded down.

    The numbers themselves change with every report of a busy engine, and each change is told to all gateways.
    """
    total = load.total_block_count
    return 8 * max(0, total - load.free_block_count) // total if total > 0 else 0
