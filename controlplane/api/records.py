"""Deployments as the store holds them, and what is said when one is not as the caller thinks."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane import wire
from controlplane.api.statuses import etag
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import DeploymentRecord, RetiredSpec
from roundhouse.kit.errors import Conflict, NotFound, NotReady, Resource
from roundhouse.v1 import errors_pb2


@dataclass(frozen=True, slots=True)
class Stored:
    """A record that was read, and what a write to it has to compare."""

    id: str
    record: DeploymentRecord
    compare: Compare


async def read(store: Store, deployment: str) -> Stored:
    """Reads a deployment by its bare id; raises NotFound if there is none."""
    entry = await store.get(wire.deployment_key(deployment))
    if entry is None:
        raise not_found(deployment)
    return Stored(deployment, DeploymentRecord.FromString(entry.value), Compare(entry.key, entry.revision))


def require_etag(store: Store, stored: Stored, given: str) -> None:
    """Raises Conflict (ETAG_MISMATCH) if an etag was given and is not the present one."""
    if given and given != etag(store.epoch, stored.record.deployment):
        raise Conflict(
            f'deployment "{stored.id}" has changed since its etag was read: read it again, then write',
            reason=errors_pb2.ERROR_REASON_ETAG_MISMATCH,
            resource=resource(stored.id),
        )


def retired(record: DeploymentRecord, *, is_proven: bool) -> RetiredSpec:
    """Returns what is kept of what replicas run once it is not wanted: all of it if it may be gone back to."""
    if not is_proven:
        return RetiredSpec(spec_generation=record.spec_generation, engine_spec=record.engine_spec)
    return RetiredSpec(
        spec_generation=record.spec_generation,
        deployment=record.deployment,
        engine_spec=record.engine_spec,
        memory_need=record.memory_need,
        sealed_env=record.sealed_env,
        is_proven=True,
    )


def unproven(spec: RetiredSpec) -> RetiredSpec:
    """Returns the same as it is kept once it is not gone back to."""
    return RetiredSpec(spec_generation=spec.spec_generation, engine_spec=spec.engine_spec)


def not_found(deployment: str) -> NotFound:
    """Returns what is said of a deployment that does not exist."""
    return NotFound(f'deployment "{deployment}" does not exist: check the name', resource=resource(deployment))


def is_going(deployment: str) -> NotReady:
    """Returns what is said of a change of a deployment that is being deleted."""
    return NotReady(
        f'deployment "{deployment}" is being deleted: wait until it is gone, then create it again',
        reason=errors_pb2.ERROR_REASON_DEPLOYMENT_DELETING,
        resource=resource(deployment),
    )


def resource(deployment: str) -> Resource:
    """Returns how an error names a deployment."""
    return Resource("roundhouse.v1.Deployment", wire.DEPLOYMENT.format(deployment))
