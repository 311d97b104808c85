"""Replicas, as a client sees them."""

from __future__ import annotations

from roundhouse.client.connection import Connection
from roundhouse.client.names import deployment_name
from roundhouse.client.pages import all_pages
from roundhouse.client.stream import Watch
from roundhouse.v1 import deployment_service_pb2
from roundhouse.v1.deployment_service_pb2_grpc import DeploymentServiceStub

ALL = "-"  # stands for every deployment


class Replicas:
    """The replicas of one deployment, or of all."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self, deployment: str = ALL) -> deployment_service_pb2.ListReplicasResponse:
        """Returns the replicas, by deployment and index, all pages in one."""

        async def fetch(token: str) -> deployment_service_pb2.ListReplicasResponse:
            request = deployment_service_pb2.ListReplicasRequest(parent=deployment_name(deployment), page_token=token)
            stub = self._connection.stub(DeploymentServiceStub)
            page: deployment_service_pb2.ListReplicasResponse = await self._connection.unary(stub.ListReplicas, request)
            return page

        return await all_pages(fetch, "replicas")

    def watch(self, deployment: str = ALL) -> Watch[deployment_service_pb2.ReplicaEvent]:
        """Returns all of them, a bookmark, then every change."""
        request = deployment_service_pb2.WatchReplicasRequest(parent=deployment_name(deployment))
        return Watch(self._connection, lambda: self._connection.stub(DeploymentServiceStub).WatchReplicas(request))
