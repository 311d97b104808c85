"""Creates deployments. Everything is looked up, computed and checked before one write makes it so."""

from __future__ import annotations

import uuid
from dataclasses import replace

from controlplane import wire
from controlplane.api.admission import Admission
from controlplane.api.checks import canonical_engine, check_new
from controlplane.api.mutations import Mutations, Write
from controlplane.api.records import resource
from controlplane.api.sizing import Sizing, put_sized
from controlplane.api.statuses import Statuses
from controlplane.api.vault import Vault
from controlplane.config import PlacementDefaults
from controlplane.model import SharingSource
from controlplane.placement.strategies import canonical_strategy
from controlplane.routing_policies import canonical_routing_policy
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import AlreadyExists, NoCapacity, NotReady
from roundhouse.kit.times import to_timestamp
from roundhouse.v1.deployment_pb2 import Deployment
from roundhouse.v1.deployment_service_pb2 import CreateDeploymentRequest, CreateDeploymentResponse

_METHOD = "roundhouse.v1.DeploymentService.CreateDeployment"
_parse = CreateDeploymentResponse.FromString


class Creating:
    """Serves `CreateDeployment`."""

    def __init__(
        self,
        store: Store,
        mutations: Mutations,
        statuses: Statuses,
        sizing: Sizing,
        admission: Admission,
        vault: Vault,
        defaults: PlacementDefaults,
        clock: Clock,
    ) -> None:
        self._store, self._mutations, self._statuses = store, mutations, statuses
        self._sizing, self._admission, self._vault = sizing, admission, vault
        self._defaults, self._clock = defaults, clock

    async def create(self, request: CreateDeploymentRequest) -> CreateDeploymentResponse:
        """Returns the deployment as stored, or as it would be with `validate_only`."""
        check_new(request.deployment, request.request_id, self._admission.strategies)
        (deployment,) = wire.DEPLOYMENT.parse(request.deployment.name, "deployment.name")
        taken = await self._taken(deployment)  # first: a name that this very request has taken comes with its answer
        answered = await self._mutations.replay(request, _METHOD, _parse)
        if answered is not None:
            return answered
        if taken is not None:
            raise taken
        # Takes seconds, so it is not done in turn.
        record = await self.draft(request.deployment, allow_pending=request.allow_pending)

        async def decide() -> Write[CreateDeploymentResponse]:
            if (taken := await self._taken(deployment)) is not None:
                raise taken
            self._admission.require_specs(record)
            wanted = wire.wanted(record)
            if wanted is not None and not request.allow_pending:
                self._admission.require_places(replace(wanted, sharing_source=sharing_source(request.deployment)))
            response = CreateDeploymentResponse(deployment=self._statuses.preview(deployment, record))
            key = wire.deployment_key(deployment)
            return Write(response, [Compare(key, 0)], {key: record.SerializeToString()})

        return await self._mutations.run(request, _METHOD, _parse, decide)

    async def draft(self, asked: Deployment, *, allow_pending: bool = False) -> DeploymentRecord:
        """Returns what would be stored of a deployment that `check_new` let pass: looked up, sized and sealed."""
        record = DeploymentRecord(deployment=self._stored(asked), spec_generation=1)
        self._vault.seal_env(record, asked.env)
        await self._size(record, allow_pending=allow_pending)
        return record

    async def require_free(self, deployment: str) -> None:
        """Raises AlreadyExists if the name is in use."""
        taken = await self._taken(deployment)
        if taken is not None:
            raise taken

    def _stored(self, asked: Deployment) -> Deployment:
        """Returns what is kept of the deployment that was asked for, with the defaults of the cluster filled in."""
        now = to_timestamp(self._clock.now())
        deployment = Deployment(
            name=asked.name,
            uid=str(uuid.uuid4()),
            generation=1,
            create_time=now,
            update_time=now,
            labels=asked.labels,
            annotations=asked.annotations,
            model=asked.model,
            engine=canonical_engine(asked.engine),
            replica_count=asked.replica_count if asked.HasField("replica_count") else 1,
            placement=asked.placement,
            engine_options=asked.engine_options,
            virtual_env=asked.virtual_env if asked.HasField("virtual_env") else None,
            rollout=asked.rollout if asked.HasField("rollout") else None,
            routing_policy=canonical_routing_policy(asked.routing_policy) or "",
        )
        policy = deployment.placement
        known = self._admission.strategies
        policy.strategy = canonical_strategy(policy.strategy or self._defaults.strategy, known) or ""
        if not policy.HasField("allow_shared_gpu"):
            policy.allow_shared_gpu = self._defaults.allows_sharing
        # What this version does not know it can neither check, count nor act upon.
        deployment.DiscardUnknownFields()
        return deployment

    async def _size(self, record: DeploymentRecord, *, allow_pending: bool) -> None:
        try:
            sized = await self._sizing.size(record.deployment)
        except (NotReady, NoCapacity):
            if not allow_pending:
                raise
            return  # it is looked up when a node has joined, and fitted when something fits
        put_sized(record, sized)

    async def _taken(self, deployment: str) -> AlreadyExists | None:
        """Returns what is said of a name in use; None if it is free."""
        entry = await self._store.get(wire.deployment_key(deployment))
        if entry is None:
            return None
        is_going = DeploymentRecord.FromString(entry.value).deployment.HasField("delete_time")
        cure = "it is being deleted, wait until it is gone" if is_going else "choose another name, or scale that one"
        return AlreadyExists(f'deployment "{deployment}" exists: {cure}', resource=resource(deployment))


def sharing_source(asked: Deployment) -> SharingSource:
    """Returns what decides whether a deployment that is asked for shares its GPUs."""
    return "request" if asked.placement.HasField("allow_shared_gpu") else "default"
