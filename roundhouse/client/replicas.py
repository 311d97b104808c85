"""Replicas, as a client sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from roundhouse.client.connection import Connection
from roundhouse.client.names import deployment_name, replica_name
from roundhouse.client.pages import all_pages
from roundhouse.client.stream import Watch
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_service_pb2, log_pb2
from roundhouse.v1.deployment_service_pb2_grpc import DeploymentServiceStub

ALL = "-"  # stands for every deployment
_STREAMS: Mapping[str, log_pb2.LogStream] = {
    "both": log_pb2.LOG_STREAM_UNSPECIFIED,
    "stdout": log_pb2.LOG_STREAM_STDOUT,
    "stderr": log_pb2.LOG_STREAM_STDERR,
}


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

    def logs(
        self,
        replica: str,
        *,
        tail_line_count: int | None = None,
        follow: bool = False,
        since_s: float | None = None,
        previous_life: bool = False,
        stream: Literal["both", "stdout", "stderr"] = "both",
    ) -> Watch[log_pb2.LogLine]:
        """Returns what the engine of a replica, `chat-0` or its name, has written, line by line.

        tail_line_count: the newest lines to begin with; all if None. since_s: leaves out what was written before, since
        1970. follow: goes on with new lines, through restarts of the engine. previous_life: of the engine before.
        """
        try:
            request = deployment_service_pb2.StreamLogsRequest(
                name=replica_name(replica),
                tail_line_count=tail_line_count,
                follow=follow,
                since_time=None if since_s is None else to_timestamp(since_s),
                previous_life=previous_life,
                stream=_STREAMS[stream],
            )
        except (ValueError, OverflowError) as error:
            raise invalid("request", f"{error}: the contract cannot carry it") from error
        return Watch(
            self._connection, lambda: self._connection.stub(DeploymentServiceStub).StreamLogs(request), "lines"
        )
