"""Changes how many replicas a deployment has."""

from __future__ import annotations

from controlplane import wire
from controlplane.api.admission import Admission
from controlplane.api.checks import check_replica_count, check_request_id
from controlplane.api.mutations import Mutations, Write
from controlplane.api.records import is_going, read, require_etag
from controlplane.api.statuses import Statuses
from controlplane.store.protocol import Store
from roundhouse.kit.clock import Clock
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.times import to_timestamp
from roundhouse.v1.deployment_service_pb2 import ScaleDeploymentRequest, ScaleDeploymentResponse

_METHOD = "roundhouse.v1.DeploymentService.ScaleDeployment"


class Scaling:
    """Serves `ScaleDeployment`."""

    def __init__(
        self, store: Store, mutations: Mutations, statuses: Statuses, admission: Admission, clock: Clock
    ) -> None:
        self._store, self._mutations, self._statuses = store, mutations, statuses
        self._admission, self._clock = admission, clock

    async def scale(self, request: ScaleDeploymentRequest) -> ScaleDeploymentResponse:
        """Returns the deployment as stored, or as it would be with `validate_only`."""
        (deployment,) = wire.DEPLOYMENT.parse(request.name)
        check = FieldCheck()
        if check.require(request.HasField("replica_count"), "replica_count", "is missing: say how many replicas"):
            check_replica_count(check, "replica_count", request.replica_count)
        check_request_id(check, request.request_id)
        check.raise_if_any()

        async def decide() -> Write[ScaleDeploymentResponse]:
            stored = await read(self._store, deployment)
            require_etag(self._store, stored, request.etag)
            record, key = stored.record, stored.compare.key
            if record.deployment.HasField("delete_time"):
                raise is_going(deployment)
            before = record.deployment.replica_count
            if request.replica_count == before:
                return Write(ScaleDeploymentResponse(deployment=self._statuses.preview(deployment, record)))
            record.deployment.replica_count = request.replica_count
            record.deployment.generation += 1
            record.deployment.update_time.CopyFrom(to_timestamp(self._clock.now()))
            if request.replica_count > before and not request.allow_pending:
                self._admission.require_room(record)
            response = ScaleDeploymentResponse(deployment=self._statuses.preview(deployment, record))
            return Write(response, [stored.compare], {key: record.SerializeToString()})

        return await self._mutations.run(request, _METHOD, ScaleDeploymentResponse.FromString, decide)
