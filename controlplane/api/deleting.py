"""Marks deployments as being deleted; they disappear once the reconciler has seen their last engine stop."""

from __future__ import annotations

from controlplane import wire
from controlplane.api.checks import MAX_GRACE_S, check_duration, check_request_id
from controlplane.api.mutations import Mutations, Write
from controlplane.api.records import read, require_etag
from controlplane.api.statuses import Statuses
from controlplane.store.protocol import Store
from roundhouse.kit.clock import Clock
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1.deployment_service_pb2 import DeleteDeploymentRequest, DeleteDeploymentResponse

_METHOD = "roundhouse.v1.DeploymentService.DeleteDeployment"


class Deleting:
    """Serves `DeleteDeployment`."""

    def __init__(self, store: Store, mutations: Mutations, statuses: Statuses, clock: Clock) -> None:
        self._store, self._mutations, self._statuses, self._clock = store, mutations, statuses, clock

    async def delete(self, request: DeleteDeploymentRequest) -> DeleteDeploymentResponse:
        """Returns the deployment as it is being deleted, or as it would be with `validate_only`."""
        (deployment,) = wire.DEPLOYMENT.parse(request.name)
        check = FieldCheck()
        if request.HasField("drain_grace"):
            check_duration(check, "drain_grace", request.drain_grace, MAX_GRACE_S)
        check_request_id(check, request.request_id)
        check.raise_if_any()

        async def decide() -> Write[DeleteDeploymentResponse]:
            stored = await read(self._store, deployment)
            require_etag(self._store, stored, request.etag)
            record = stored.record
            if record.deployment.HasField("delete_time"):
                return Write(DeleteDeploymentResponse(deployment=self._statuses.preview(deployment, record)))
            now = to_timestamp(self._clock.now())
            record.deployment.delete_time.CopyFrom(now)
            record.deployment.update_time.CopyFrom(now)
            record.deployment.generation += 1
            has_grace = request.HasField("drain_grace")
            record.drain_grace.CopyFrom(request.drain_grace if has_grace else to_duration(wire.DRAIN_GRACE_S))
            response = DeleteDeploymentResponse(deployment=self._statuses.preview(deployment, record))
            return Write(response, [stored.compare], {stored.compare.key: record.SerializeToString()})

        return await self._mutations.run(request, _METHOD, DeleteDeploymentResponse.FromString, decide)
