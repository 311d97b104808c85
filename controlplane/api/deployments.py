"""Serves `DeploymentService`: takes in what users want, and shows what becomes of it."""

from __future__ import annotations

from typing import Any

from controlplane import wire
from controlplane.api.creating import Creating
from controlplane.api.deleting import Deleting
from controlplane.api.logs import Logs
from controlplane.api.paging import page
from controlplane.api.planning import Planning
from controlplane.api.records import not_found
from controlplane.api.scaling import Scaling
from controlplane.api.statuses import Statuses
from controlplane.api.updating import Updating
from controlplane.api.watches import Watches
from roundhouse.v1 import deployment_service_pb2 as pb
from roundhouse.v1.deployment_pb2 import Deployment

_ALL = "-"


class DeploymentApi:
    """The methods of `DeploymentService`."""

    def __init__(
        self,
        creating: Creating,
        updating: Updating,
        scaling: Scaling,
        deleting: Deleting,
        planning: Planning,
        statuses: Statuses,
        watches: Watches,
        logs: Logs,
        *,
        epoch: str,
    ) -> None:
        self._creating, self._updating, self._scaling = creating, updating, scaling
        self._deleting, self._planning = deleting, planning
        self._statuses, self._watches, self._logs, self._epoch = statuses, watches, logs, epoch

    async def CreateDeployment(self, request: pb.CreateDeploymentRequest, _: Any) -> pb.CreateDeploymentResponse:
        """Creates a deployment."""
        return await self._creating.create(request)

    async def UpdateDeployment(self, request: pb.UpdateDeploymentRequest, _: Any) -> pb.UpdateDeploymentResponse:
        """Changes what is wanted."""
        return await self._updating.update(request)

    async def ScaleDeployment(self, request: pb.ScaleDeploymentRequest, _: Any) -> pb.ScaleDeploymentResponse:
        """Changes the number of replicas."""
        return await self._scaling.scale(request)

    async def DeleteDeployment(self, request: pb.DeleteDeploymentRequest, _: Any) -> pb.DeleteDeploymentResponse:
        """Starts the deletion of a deployment."""
        return await self._deleting.delete(request)

    async def PlanDeployment(self, request: pb.PlanDeploymentRequest, _: Any) -> pb.PlanDeploymentResponse:
        """Says where replicas would go."""
        return await self._planning.plan(request)

    async def GetDeployment(self, request: pb.GetDeploymentRequest, _: Any) -> pb.GetDeploymentResponse:
        """Returns one deployment."""
        (deployment,) = wire.DEPLOYMENT.parse(request.name)
        status = self._statuses.get(deployment)
        if status is None:
            raise not_found(deployment)
        return pb.GetDeploymentResponse(deployment=status.deployment)

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, _: Any) -> pb.ListDeploymentsResponse:
        """Returns a page of deployments."""
        part = page(
            self._statuses.ids(),
            str,
            self._deployment,
            epoch=self._epoch,
            kind="list-deployments",
            size=request.page_size,
            token=request.page_token,
            revision=self._watches.revision,
        )
        return pb.ListDeploymentsResponse(
            deployments=part.shown,
            next_page_token=part.next_token,
            unreachable=self._statuses.unreachable(),
            # Of the first page: what was on it may have been deleted since, and only a watch from there says so.
            cursor=self._watches.cursor(part.revision),
        )

    async def WatchDeployments(self, request: pb.WatchDeploymentsRequest, context: Any) -> None:
        """Streams deployments."""
        await self._watches.deployments(request.cursor, context)

    async def ListReplicas(self, request: pb.ListReplicasRequest, _: Any) -> pb.ListReplicasResponse:
        """Returns a page of replicas."""
        deployment = self._parent(request.parent)
        present = self._statuses.ids() if deployment is None else [deployment]
        replicas = [
            (f"{each} {int(replica.name.rpartition('/')[2]):06d}", replica)
            for each in present
            if (status := self._statuses.get(each)) is not None
            for replica in status.replicas
        ]
        part = page(
            replicas,
            lambda pair: pair[0],
            lambda pair: pair[1],
            epoch=self._epoch,
            kind=f"list-replicas-of {deployment or _ALL}",
            size=request.page_size,
            token=request.page_token,
        )
        nodes = set(self._statuses.unreachable())
        everywhere = {replica.node for _, replica in replicas}
        return pb.ListReplicasResponse(
            replicas=part.shown,
            next_page_token=part.next_token,
            unreachable=sorted(nodes & everywhere),
        )

    async def WatchReplicas(self, request: pb.WatchReplicasRequest, context: Any) -> None:
        """Streams replicas."""
        await self._watches.replicas(self._parent(request.parent), context)

    async def StreamLogs(self, request: pb.StreamLogsRequest, context: Any) -> None:
        """Streams what an engine has written."""
        await self._logs.stream(request, context)

    def _deployment(self, deployment: str) -> Deployment:
        status = self._statuses.get(deployment)
        assert status is not None, "an id that was listed in this very moment"
        return status.deployment

    def _parent(self, parent: str) -> str | None:
        """Returns the bare id of an existing deployment, None for all."""
        if wire.DEPLOYMENT.match(parent) == (_ALL,):
            return None
        (deployment,) = wire.DEPLOYMENT.parse(parent, "parent")
        if self._statuses.get(deployment) is None:
            raise not_found(deployment)
        return deployment
