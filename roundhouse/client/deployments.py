"""Deployments, as a client asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import field_mask_pb2

from roundhouse.client.connection import Connection
from roundhouse.client.names import deployment_name
from roundhouse.client.pages import all_pages
from roundhouse.client.replicas import Replicas
from roundhouse.client.stream import Watch
from roundhouse.client.wait import OnProgress, Progress, wait_until_gone, wait_until_ready
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration
from roundhouse.v1 import deployment_pb2, deployment_service_pb2
from roundhouse.v1.deployment_service_pb2_grpc import DeploymentServiceStub


class Deployments:
    """What is wanted to be served, addressed by bare id, `chat`, or by name, `deployments/chat`.

    With a `request_id`, a mutation can be repeated to learn whether it happened. With `validate_only` it is checked and
    answered, not stored.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._replicas = Replicas(connection)

    async def create(
        self,
        deployment: deployment_pb2.Deployment,
        *,
        allow_pending: bool = False,
        validate_only: bool = False,
        request_id: str = "",
    ) -> deployment_pb2.Deployment:
        """Stores a deployment, as `deployment(...)` writes it, and returns it; its engines start afterwards."""
        return await self._ask(
            lambda stub: stub.CreateDeployment,
            lambda: deployment_service_pb2.CreateDeploymentRequest(
                deployment=deployment, allow_pending=allow_pending, validate_only=validate_only, request_id=request_id
            ),
        )

    async def get(self, deployment: str) -> deployment_pb2.Deployment:
        """Returns one deployment with its status."""
        return await self._ask(
            lambda stub: stub.GetDeployment,
            lambda: deployment_service_pb2.GetDeploymentRequest(name=deployment_name(deployment)),
        )

    async def list(self) -> deployment_service_pb2.ListDeploymentsResponse:
        """Returns the deployments, by name, all pages in one; its `cursor` is where a watch can go on."""

        async def fetch(token: str) -> deployment_service_pb2.ListDeploymentsResponse:
            request = deployment_service_pb2.ListDeploymentsRequest(page_token=token)
            stub = self._connection.stub(DeploymentServiceStub)
            page: deployment_service_pb2.ListDeploymentsResponse = await self._connection.unary(
                stub.ListDeployments, request
            )
            return page

        return await all_pages(fetch, "deployments")

    async def update(
        self,
        deployment: deployment_pb2.Deployment,
        paths: Sequence[str] = (),
        *,
        allow_pending: bool = False,
        validate_only: bool = False,
        request_id: str = "",
    ) -> deployment_pb2.Deployment:
        """Changes what `paths` name, as `engine_options.batch_size`, and returns the deployment as stored.

        Without paths everything changes that is set and can be changed. If engines are to run something else, replicas
        are replaced afterwards, see `wait_ready`. If `deployment` has an etag, it must be the present one.
        """
        return await self._ask(
            lambda stub: stub.UpdateDeployment,
            lambda: deployment_service_pb2.UpdateDeploymentRequest(
                deployment=deployment,
                update_mask=field_mask_pb2.FieldMask(paths=paths),
                allow_pending=allow_pending,
                validate_only=validate_only,
                request_id=request_id,
            ),
        )

    async def scale(
        self,
        deployment: str,
        replica_count: int,
        *,
        allow_pending: bool = False,
        validate_only: bool = False,
        etag: str = "",
        request_id: str = "",
    ) -> deployment_pb2.Deployment:
        """Changes how many replicas are wanted and returns the deployment as stored; surplus replicas are drained."""
        return await self._ask(
            lambda stub: stub.ScaleDeployment,
            lambda: deployment_service_pb2.ScaleDeploymentRequest(
                name=deployment_name(deployment),
                replica_count=replica_count,
                allow_pending=allow_pending,
                validate_only=validate_only,
                etag=etag,
                request_id=request_id,
            ),
        )

    async def delete(
        self,
        deployment: str,
        *,
        drain_grace_s: float | None = None,
        validate_only: bool = False,
        etag: str = "",
        request_id: str = "",
    ) -> deployment_pb2.Deployment:
        """Begins to delete a deployment and returns it; see `wait_gone` for the end."""
        return await self._ask(
            lambda stub: stub.DeleteDeployment,
            lambda: deployment_service_pb2.DeleteDeploymentRequest(
                name=deployment_name(deployment),
                drain_grace=None if drain_grace_s is None else to_duration(drain_grace_s),
                validate_only=validate_only,
                etag=etag,
                request_id=request_id,
            ),
        )

    async def plan(
        self,
        deployment: str | deployment_pb2.Deployment,
        *,
        replica_count: int | None = None,
        imagined_gpus: Sequence[deployment_service_pb2.ImaginedGpus] = (),
    ) -> deployment_service_pb2.PlanDeploymentResponse:
        """Returns where replicas would go, and a verdict on every device, without doing anything.

        deployment: one as `deployment(...)` writes it, or the name of one that exists, then with `replica_count` if it
        is to be another. imagined_gpus: beside those that are there.
        """
        try:
            request = deployment_service_pb2.PlanDeploymentRequest(
                replica_count=replica_count, imagined_gpus=imagined_gpus
            )
            if isinstance(deployment, str):
                request.name = deployment_name(deployment)
            else:
                request.deployment.CopyFrom(deployment)
        except (ValueError, OverflowError) as error:
            raise invalid("request", f"{error}: the contract cannot carry it") from error
        stub = self._connection.stub(DeploymentServiceStub)
        planned: deployment_service_pb2.PlanDeploymentResponse = await self._connection.unary(
            stub.PlanDeployment, request
        )
        return planned

    def watch(self, cursor: str = "") -> Watch[deployment_service_pb2.DeploymentEvent]:
        """Returns all deployments, a bookmark, then every change; behind `cursor`, only what changed since."""
        request = deployment_service_pb2.WatchDeploymentsRequest(cursor=cursor)
        return Watch(self._connection, lambda: self._connection.stub(DeploymentServiceStub).WatchDeployments(request))

    async def wait_ready(
        self,
        deployment: str,
        timeout_s: float = 600.0,
        on_event: OnProgress | None = None,
        *,
        wanted: deployment_pb2.Deployment | None = None,
    ) -> Progress:
        """Waits until exactly the wanted replicas are there and READY; calls `on_event` at every change on the way.

        `wanted` is what `create` or `scale` returned: the wait is for that, and raises Conflict once somebody wants
        another count. Without it, what is wanted at the end counts, whoever wanted it.

        Goes on through restarts of the control plane. Raises NotFound if there is no such deployment, or no longer;
        EngineFailed once an engine dies again and again; DeadlineExceeded, saying what is missing, after `timeout_s`.
        """
        name = deployment_name(deployment)
        return await wait_until_ready(
            name, self.watch, lambda: self._replicas.watch(name), timeout_s, on_event, wanted=wanted
        )

    async def wait_gone(self, deployment: str, timeout_s: float = 600.0, on_event: OnProgress | None = None) -> None:
        """Waits until the deployment and all its engines are gone; raises DeadlineExceeded after `timeout_s`."""
        name = deployment_name(deployment)
        await wait_until_gone(name, self.watch, lambda: self._replicas.watch(name), timeout_s, on_event)

    async def _ask(
        self, method: Callable[[DeploymentServiceStub], Any], build: Callable[[], object]
    ) -> deployment_pb2.Deployment:
        stub = self._connection.stub(DeploymentServiceStub)
        try:
            request = build()
        except (ValueError, OverflowError) as error:  # of a number that does not fit, or text that is not Unicode
            raise invalid("request", f"{error}: the contract cannot carry it") from error
        response = await self._connection.unary(method(stub), request)
        deployment: deployment_pb2.Deployment = response.deployment
        return deployment
