"""Refuses what does not fit, by the functions that the reconciler places with, on the same facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from controlplane import wire
from controlplane.api.records import resource
from controlplane.api.sizing import COMPUTED_BYTES, engine_spec
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from controlplane.model import Placement, Unplaced, Wanted
from controlplane.placement.ledger import Ledger, in_order
from roundhouse.kit.errors import NoCapacity, QuotaViolation
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import Deployment

# All replicas may come to one node, whose assignment is one value of the store, and holds each spec once: what is left
# of the 1 MiB is for the entries of MAX_NODE_REPLICAS replicas.
MAX_SPECS_BYTES = 768 * 1024


class Admission:
    """Looks whether there is a place for every replica of a deployment beside all that is wanted already."""

    def __init__(self, intent: Intent, registry: Registry) -> None:
        self._intent, self._registry = intent, registry

    def require_node(self) -> None:
        """Raises NotReady (NO_NODE) unless a node is READY."""
        if not any(known.is_ready for known in self._registry.known.values()):
            raise self._registry.no_node()

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
        after = self._unplaced(self._with(wanted))
        own = [each for each in after if each.deployment == wanted.deployment]
        if own:
            raise _refusal(wanted, own)
        self._require_kept(wanted, after)

    def _require_kept(self, wanted: Wanted, after: Sequence[Unplaced]) -> None:
        """Raises NoCapacity (DOES_NOT_FIT) if a replica that waits to be placed would lose its place to the wanted."""
        before = {(each.deployment, each.index) for each in self._unplaced(self._stored())} if after else ()
        lost = [each for each in after if (each.deployment, each.index) not in before]
        if lost:
            raise _broken(wanted, lost)

    def _stored(self) -> list[Wanted]:
        """Returns what is wanted, in the order in which it is placed; what is not looked up yet waits."""
        rows = self._intent.deployments.rows.values()
        known = ((wire.wanted(row.value), row.create_revision) for row in rows)
        return in_order(replace(each, create_revision=made) for each, made in known if each is not None)

    def _with(self, wanted: Wanted) -> list[Wanted]:
        """Returns the same when a deployment has been changed, or made, which puts it last."""
        stored = self._stored()
        if all(each.uid != wanted.uid for each in stored):
            return [*stored, wanted]
        return [wanted if each.uid == wanted.uid else each for each in stored]

    def _unplaced(self, wanted: Sequence[Wanted]) -> list[Unplaced]:
        """Returns the replicas for which the reconciler finds no place if this is what is wanted."""
        placements = [row.value for row in self._intent.placements.rows.values()]
        own: dict[str, list[Placement]] = defaultdict(list)
        for each in placements:
            own[each.deployment_uid].append(each)
        exclusive = {each.uid for each in wanted if not each.allows_sharing}
        ledger = Ledger(self._registry.nodes().values(), placements, exclusive=exclusive)
        found: list[Unplaced] = []
        for deployment in wanted:
            if not deployment.is_deleting:
                found += ledger.fill(deployment, own[deployment.uid]).unplaced
        return found


def _spec_bytes(deployment: Deployment) -> int:
    """Returns the most that what is told of a deployment to a node takes there, once."""
    return engine_spec(deployment).ByteSize() + COMPUTED_BYTES


def _refusal(wanted: Wanted, unplaced: Sequence[Unplaced]) -> NoCapacity:
    first = unplaced[0]  # the others lack the same
    return NoCapacity(
        f"{len(unplaced)} of {wanted.replica_count} replicas have no place: {first.reason}",
        quota=[QuotaViolation(subject, description) for subject, description in first.lacks],
        resource=resource(wanted.deployment),
    )


def _broken(wanted: Wanted, lost: Sequence[Unplaced]) -> NoCapacity:
    first = lost[0]
    return NoCapacity(
        f'replica "{first.deployment}-{first.index}" waits to be placed, and would have no place after this change of '
        f'"{wanted.deployment}": try again when it is placed, or allow_pending',
        quota=[QuotaViolation(subject, description) for subject, description in first.lacks],
        resource=resource(wanted.deployment),
    )
