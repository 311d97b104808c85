"""Changes what is wanted of a deployment. What its engines are to run is replaced by rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane import wire
from controlplane.api.admission import Admission
from controlplane.api.checks import check_new
from controlplane.api.masks import OF_ENGINES, changed_paths, merge, same
from controlplane.api.mutations import Mutations, Write
from controlplane.api.records import Stored, is_going, read, require_etag, resource, retired, unproven
from controlplane.api.sizing import Sizing, put_sized
from controlplane.api.statuses import Statuses
from controlplane.api.vault import Vault, check_kept
from controlplane.routing_policies import canonical_routing_policy
from controlplane.secrets import secret_bytes
from controlplane.store.protocol import Store
from roundhouse.internal.v1.store_pb2 import ROLLOUT_STATE_RUNNING, DeploymentRecord, Rollout
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Conflict, NoCapacity, NotReady
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.times import to_timestamp
from roundhouse.kit.urls import redacted
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EnvVar
from roundhouse.v1.deployment_service_pb2 import UpdateDeploymentRequest, UpdateDeploymentResponse

_METHOD = "roundhouse.v1.DeploymentService.UpdateDeployment"
_parse = UpdateDeploymentResponse.FromString
_ATTEMPTS = 3  # what is stored may change while a model is looked up
MOST_RETIRED = 2  # versions that replicas may run beside the one that is wanted: each takes room in assignments


@dataclass(frozen=True, slots=True)
class _Draft:
    """What would be stored in place of a record."""

    stored: Stored
    record: DeploymentRecord
    is_new_spec: bool  # engines are to run something else
    has_grown: bool = True  # a replica needs more than before, as far as is known


class Updating:
    """Serves `UpdateDeployment`."""

    def __init__(
        self,
        store: Store,
        mutations: Mutations,
        statuses: Statuses,
        sizing: Sizing,
        admission: Admission,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._store, self._mutations, self._statuses = store, mutations, statuses
        self._sizing, self._admission, self._vault, self._clock = sizing, admission, vault, clock

    async def update(self, request: UpdateDeploymentRequest) -> UpdateDeploymentResponse:
        """Returns the deployment as stored, or as it would be with `validate_only`."""
        (deployment,) = wire.DEPLOYMENT.parse(request.deployment.name, "deployment.name")
        check = FieldCheck()
        paths = changed_paths(check, request.update_mask.paths, request.deployment)
        check.raise_if_any()
        for attempt in range(_ATTEMPTS):
            answered = await self._mutations.replay(request, _METHOD, _parse)
            if answered is not None:
                return answered
            draft = await self._draft(await read(self._store, deployment), request, paths)  # takes seconds: not in turn

            async def decide(draft: _Draft = draft) -> Write[UpdateDeploymentResponse]:
                return await self._decide(draft, request)

            try:
                return await self._mutations.run(request, _METHOD, _parse, decide)
            except _Overtaken:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _draft(self, stored: Stored, request: UpdateDeploymentRequest, paths: Sequence[str]) -> _Draft:
        """Returns what is to be stored: checked, looked up, sized and sealed."""
        require_etag(self._store, stored, request.deployment.etag)
        before = stored.record
        if before.deployment.HasField("delete_time"):
            raise is_going(stored.id)
        record = DeploymentRecord()
        record.CopyFrom(before)
        after = record.deployment
        env = list(before.deployment.env)
        merge(request.deployment, after, paths)
        shown = redacted(before.deployment.virtual_env.index_url)
        if shown and after.virtual_env.index_url == shown:  # as it was read, without its password
            after.virtual_env.index_url = before.deployment.virtual_env.index_url
        after.DiscardUnknownFields()
        if "env" in paths:
            env = list(request.deployment.env)
        self._check(after, env, record, request.request_id)
        self._vault.seal_env(record, env)
        if not after.HasField("replica_count"):
            after.replica_count = 1
        after.routing_policy = canonical_routing_policy(after.routing_policy) or ""
        new_secrets = any(each.HasField("secret_value") for each in env)
        if same(after, before.deployment, OF_ENGINES) and not new_secrets:
            return _Draft(stored, record, is_new_spec=False)
        after.generation += 1
        record.spec_generation = after.generation
        await self._size(record, allow_pending=request.allow_pending)
        is_sized = before.HasField("memory_need")
        has_grown = not is_sized or record.memory_need.total_bytes > before.memory_need.total_bytes
        return _Draft(stored, record, is_new_spec=True, has_grown=has_grown)

    def _check(self, after: Deployment, env: Sequence[EnvVar], record: DeploymentRecord, request_id: str) -> None:
        """Raises what a creation would, and for secrets that cannot be kept."""
        check = FieldCheck()
        check_kept(check, record, env)
        check.raise_if_any()
        asked = Deployment()
        asked.CopyFrom(after)
        asked.placement.ClearField("gpu_count")  # it may exceed the count of replicas once they are fewer
        asked.ClearField("env")
        lengths = {each.name: secret_bytes(each) for each in record.sealed_env}
        for each in env:
            # A secret that is kept was checked when it came, and has its length still.
            kept = EnvVar(name=each.name, secret_value="*" * lengths.get(each.name, 0))
            asked.env.add().CopyFrom(each if each.WhichOneof("source") else kept)
        check_new(asked, request_id, self._admission.strategies)

    async def _size(self, record: DeploymentRecord, *, allow_pending: bool) -> None:
        try:
            put_sized(record, await self._sizing.size(record.deployment))
        except (NotReady, NoCapacity):
            # What runs cannot do without: it would be stopped. What never ran is looked up later.
            if record.HasField("memory_need") or not allow_pending:
                raise

    async def _decide(self, draft: _Draft, request: UpdateDeploymentRequest) -> Write[UpdateDeploymentResponse]:
        stored = await read(self._store, draft.stored.id)
        if stored.compare != draft.stored.compare:
            raise _Overtaken(
                f'deployment "{stored.id}" was changed by others while this change was computed: try again',
                resource=resource(stored.id),
            )
        before, record = stored.record, draft.record
        if record == before:
            return Write(UpdateDeploymentResponse(deployment=self._statuses.preview(stored.id, record)))
        now = to_timestamp(self._clock.now())
        if draft.is_new_spec:
            self._retire(before, record)
            self._admission.require_specs(record)
        else:
            record.deployment.generation += 1
        record.deployment.update_time.CopyFrom(now)
        grows = record.deployment.replica_count > before.deployment.replica_count
        if not request.allow_pending and (grows or (draft.is_new_spec and draft.has_grown)):
            self._admission.require_room(record)
        response = UpdateDeploymentResponse(deployment=self._statuses.preview(stored.id, record))
        return Write(response, [stored.compare], {stored.compare.key: record.SerializeToString()})

    def _retire(self, before: DeploymentRecord, record: DeploymentRecord) -> None:
        """Keeps what replicas run now beside what they are to run, as long as some do, and as what is gone back to."""
        deployment = before.deployment
        (name,) = wire.DEPLOYMENT.parse(deployment.name)
        running = self._statuses.spec_generations(name, deployment.uid)
        is_rolling = before.rollout.state == ROLLOUT_STATE_RUNNING
        proven = next((each for each in before.retired if each.is_proven), None) if is_rolling else None
        if proven is None and self._statuses.serves_spec(name, deployment.uid, before.spec_generation):
            proven = retired(before, is_proven=True)
        others = [retired(before, is_proven=False), *map(unproven, before.retired)]
        still = running if proven is None else running - {proven.spec_generation}
        kept = [each for each in others if each.spec_generation in still] + ([] if proven is None else [proven])
        if len(kept) > MOST_RETIRED:
            raise NotReady(
                f'replicas of {len(kept)} versions of "{name}" run already: wait until the older ones have stopped, or '
                "shorten rollout.drain_grace",
                reason=errors_pb2.ERROR_REASON_ROLLOUT_IN_PROGRESS,
                resource=resource(name),
            )
        record.ClearField("retired")
        record.retired.extend(kept)
        record.rollout.CopyFrom(Rollout(state=ROLLOUT_STATE_RUNNING))


class _Overtaken(Conflict):
    """What is stored has changed since it was read."""
