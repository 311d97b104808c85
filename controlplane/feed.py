"""Routes as messages: what of them changed between two looks, and the copy that a gateway keeps of them."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.model import NodeId, ReplicaUid, Route, Routes
from controlplane.routing_policies import canonical_routing_policy
from roundhouse.internal.v1 import fleet_service_pb2 as pb


def changes(before: Routes, after: Routes) -> Iterator[pb.RoutesEvent]:
    """Yields what a reader that knows `before` has to be told to know `after`."""
    if before.gateway_count != after.gateway_count:
        yield pb.RoutesEvent(gateway_count=after.gateway_count)
    for deployment in before.replicas:
        if deployment not in after.replicas:
            yield pb.RoutesEvent(deleted=deployment)
    for deployment in after.replicas:
        if deployment not in before.replicas or _said(before, deployment) != _said(after, deployment):
            yield pb.RoutesEvent(changed=_message(after, deployment))


class Copy:
    """What a stream of events has told so far. A look counts when its bookmark comes, and then whole."""

    def __init__(self) -> None:
        self._told: dict[str, pb.DeploymentRoutes] = {}
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._gateway_count = 1

    def take(self, event: pb.RoutesEvent) -> Routes | None:
        """Takes an event in; returns the routes if it is a bookmark."""
        match event.WhichOneof("event"):
            case "changed":
                self._told[event.changed.deployment] = event.changed
                self._routes[event.changed.deployment] = tuple(
                    _route(event.changed, each) for each in event.changed.routes
                )
            case "deleted":
                self._told.pop(event.deleted, None)
                self._routes.pop(event.deleted, None)
            case "gateway_count":
                self._gateway_count = event.gateway_count
            case "bookmark":
                return Routes(
                    dict(self._routes),
                    frozenset(name for name, told in self._told.items() if told.is_deleting),
                    {
                        name: {ReplicaUid(each.replica_uid): each.index for each in told.silent_replicas}
                        for name, told in self._told.items()
                        if told.silent_replicas
                    },
                    {
                        name: policy
                        for name, told in self._told.items()
                        if (policy := canonical_routing_policy(told.routing_policy)) is not None
                    },
                    gateway_count=self._gateway_count,
                )
        return None


def _said(routes: Routes, deployment: str) -> object:
    return (
        routes.replicas[deployment],
        deployment in routes.deleting,
        routes.silent.get(deployment),
        routes.policies.get(deployment),
    )


def _message(routes: Routes, deployment: str) -> pb.DeploymentRoutes:
    # A fingerprint is as long as all else of a route, and most replicas have the same.
    fingerprints = list(dict.fromkeys(each.fingerprint for each in routes.replicas[deployment] if each.fingerprint))
    numbers = {"": 0, **{each: number for number, each in enumerate(fingerprints, 1)}}
    return pb.DeploymentRoutes(
        deployment=deployment,
        is_deleting=deployment in routes.deleting,
        routes=[
            pb.Route(
                index=each.index,
                replica_uid=each.replica_uid,
                placement_epoch=each.epoch,
                node=each.node,
                address=each.address,
                engine_uuid=each.engine_uuid,
                engine_key=each.engine_key,
                is_ready=each.is_ready,
                running_count=each.running_count,
                waiting_count=each.waiting_count,
                is_load_unknown=each.is_stale,
                used_block_eighths=each.used_block_eighths,
                fingerprint_number=numbers[each.fingerprint],
                max_running_count=each.max_running_count,
                kv_token_count=each.kv_token_count,
            )
            for each in routes.replicas[deployment]
        ],
        silent_replicas=[
            pb.SilentReplica(index=index, replica_uid=uid) for uid, index in routes.silent.get(deployment, {}).items()
        ],
        fingerprints=fingerprints,
        routing_policy=routes.policies.get(deployment, ""),
    )


def _route(of: pb.DeploymentRoutes, told: pb.Route) -> Route:
    number = told.fingerprint_number
    return Route(
        deployment=of.deployment,
        index=told.index,
        replica_uid=ReplicaUid(told.replica_uid),
        epoch=told.placement_epoch,
        node=NodeId(told.node),
        address=told.address,
        engine_uuid=told.engine_uuid,
        engine_key=told.engine_key,
        is_ready=told.is_ready,
        running_count=told.running_count,
        waiting_count=told.waiting_count,
        is_stale=told.is_load_unknown,
        used_block_eighths=told.used_block_eighths,
        fingerprint=of.fingerprints[number - 1] if 0 < number <= len(of.fingerprints) else "",
        max_running_count=told.max_running_count,
        kv_token_count=told.kv_token_count,
    )
