"""Refuses what does not fit, by the functions that the reconciler places with, on the same facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane import wire
from controlplane.api.records import resource
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.model import Placement, ReplicaUid, Unplaced, Wanted
from controlplane.placement.place import Proposal, place
from roundhouse.kit.errors import NoCapacity, NotReady, QuotaViolation
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import Deployment

# All replicas may come to one node, whose assignment is one value of the store, and holds each spec once: what is left
# of the 1 MiB is for over a thousand replicas.
MAX_SPECS_BYTES = 768 * 1024


class Admission:
    """Looks whether there is a place for every replica of a deployment beside all that is wanted already."""

    def __init__(self, intent: Intent, registry: Registry) -> None:
        self._intent, self._registry = intent, registry

    def require_node(self) -> None:
        """Raises NotReady (NO_NODE) unless a node is READY."""
        if not any(known.is_ready for known in self._registry.known.values()):
            raise NotReady("no node is connected: start a node agent, or allow_pending")

    def require_specs(self, deployment: Deployment) -> None:
        """Raises NoCapacity unless the specs of all deployments together can stand in the assignment of one node."""
        stored = [row.value.deployment for row in self._intent.deployments.rows.values()]
        size = sum(map(_spec_bytes, [*stored, deployment]))
        if size > MAX_SPECS_BYTES:
            message = f"the models and environments of all deployments would take {format_bytes(size)}"
            message += (
                f", of which a node can be told {format_bytes(MAX_SPECS_BYTES)}: shorten env, or delete deployments"
            )
            raise NoCapacity(
                message,
                reason=errors_pb2.ERROR_REASON_SPECS_TOO_LARGE,
                quota=[QuotaViolation("deployments", message)],
            )

    def require_places(self, wanted: Wanted) -> None:
        """Raises NoCapacity (DOES_NOT_FIT), with the numbers of each GPU, unless there is a place for every replica."""
        self.require_node()
        others = [wire.wanted(row.value) for row in self._intent.deployments.rows.values()]
        known = [each for each in others if each is not None and each.uid != wanted.uid]
        exclusive = {each.uid for each in [*known, wanted] if not each.allows_sharing}
        placements = [row.value for row in self._intent.placements.rows.values()]
        # Others that are stored but not placed yet come first: they were acknowledged before this one.
        for each in sorted(known, key=lambda each: each.deployment):
            if not each.is_deleting:
                placements += self._fill(each, placements, exclusive)[0]
        _, unplaced = self._fill(wanted, placements, exclusive)
        if unplaced:
            raise _refusal(wanted, unplaced)

    def _fill(
        self, wanted: Wanted, placements: Sequence[Placement], exclusive: Iterable[str]
    ) -> tuple[list[Placement], Sequence[Unplaced]]:
        """Returns placements for the replicas that have none yet, and those for which there is no place."""
        own = [each for each in placements if each.deployment_uid == wanted.uid and not each.is_stopping]
        missing = sorted(set(range(wanted.replica_count)) - {each.index for each in own})
        if not missing:
            return [], ()
        nodes = list(self._registry.nodes().values())
        places = place(wanted, missing, placements=placements, nodes=nodes, exclusive=frozenset(exclusive))
        return [_assumed(wanted, each) for each in places.proposals], places.unplaced


def _spec_bytes(deployment: Deployment) -> int:
    return deployment.model.ByteSize() + sum(each.ByteSize() for each in deployment.env)


def _assumed(wanted: Wanted, proposal: Proposal) -> Placement:
    return Placement(
        deployment=wanted.deployment,
        deployment_uid=wanted.uid,
        index=proposal.index,
        replica_uid=ReplicaUid(f"{wanted.uid}/{proposal.index}"),
        epoch=0,
        node=proposal.node,
        gpus=proposal.gpus,
        reserved_bytes=proposal.reserved_bytes,
    )


def _refusal(wanted: Wanted, unplaced: Sequence[Unplaced]) -> NoCapacity:
    first = unplaced[0]  # the others lack the same
    return NoCapacity(
        f"{len(unplaced)} of {wanted.replica_count} replicas have no place: {first.reason}",
        quota=[QuotaViolation(subject, description) for subject, description in first.lacks],
        resource=resource(wanted.deployment),
    )
