"""Refuses what does not fit, by the functions that the reconciler places with, on the same facts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controlplane import wire
from controlplane.api.outlook import Outlook
from controlplane.api.records import resource
from controlplane.api.sizing import COMPUTED_BYTES, engine_spec
from controlplane.catalog.checks import MAX_TEMPLATE_BYTES
from controlplane.fleet.intent import Intent
from controlplane.model import Unplaced, Wanted
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import NoCapacity, NotReady, QuotaViolation
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import errors_pb2

# All replicas may come to one node, whose assignment is one value of the store, and holds each spec once: what is left
# of the 1 MiB is for the entries of MAX_NODE_REPLICAS replicas, and for the UUIDs of its GPUs.
MAX_SPECS_BYTES = 704 * 1024


class Admission:
    """Looks whether there is a place for every replica of a deployment beside all that is wanted already."""

    def __init__(self, intent: Intent, outlook: Outlook) -> None:
        self._intent, self._outlook = intent, outlook

    @property
    def strategies(self) -> Collection[str]:
        """Returns the names of the strategies that exist."""
        return self._outlook.strategies.keys()

    def require_node(self) -> None:
        """Raises NotReady (NO_NODE) unless a node is READY."""
        self._outlook.require_node()

    def require_specs(self, record: DeploymentRecord) -> None:
        """Raises NoCapacity unless the specs of all deployments together can stand in the assignment of one node."""
        stored = (row.value for row in self._intent.deployments.rows.values())
        others = [each for each in stored if each.deployment.uid != record.deployment.uid]
        size = sum(map(_spec_bytes, [*others, record]))
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

    def has_places(self, wanted: Wanted) -> bool:
        """Tells whether there is a place for every replica, and none that waits for one would lose it."""
        try:
            self.require_places(wanted)
        except NoCapacity:
            return False
        return True

    def require_room(self, record: DeploymentRecord) -> None:
        """Raises NoCapacity as `require_places` does, and NotReady if it is not known how much a replica needs."""
        wanted = wire.wanted(record)
        if wanted is None:
            raise NotReady(
                "the model has not been looked up yet: wait until a node that has it is connected, or allow_pending",
                reason=errors_pb2.ERROR_REASON_MODEL_NOT_LOOKED_UP,
            )
        self.require_places(wanted)

    def require_places(self, wanted: Wanted) -> None:
        """Raises NoCapacity (DOES_NOT_FIT), with the numbers of each GPU, unless there is a place for every replica."""
        self.require_node()
        after = self._outlook.with_(wanted).unplaced
        own = [each for each in after if each.deployment == wanted.deployment]
        if own:
            raise _refusal(wanted, own)
        lost = self._outlook.displaced(wanted, after)
        if lost:
            raise _broken(wanted, lost)


def _spec_bytes(record: DeploymentRecord) -> int:
    """Returns the most that what is told of a deployment to a node takes there, once."""
    deployment = record.deployment
    size = engine_spec(deployment).ByteSize() + COMPUTED_BYTES
    if not record.HasField("engine_spec") and deployment.model.WhichOneof("source") == "family":
        size += MAX_TEMPLATE_BYTES  # it may bring a chat template once it is looked up
    return max(size, record.engine_spec.ByteSize()) + sum(each.engine_spec.ByteSize() for each in record.retired)


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
