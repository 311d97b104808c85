"""A control plane that plays a script: real gRPC services over a fleet that exists in memory only.

What happens to a deployment is chosen by its label `script`, what happens to a request by its prompt, so that a test
in another process can choose as well. `python -m tests.support.scripted_cluster` serves it on a free port and prints
the address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from roundhouse.kit import logs
from roundhouse.kit.errors import (
    AlreadyExists,
    FieldViolation,
    InvalidArgument,
    NoCapacity,
    NotFound,
    NotReady,
    QuotaViolation,
    TooLong,
)
from roundhouse.kit.latest import Latest
from roundhouse.kit.process import run
from roundhouse.kit.server import Listen, Serving, serve
from roundhouse.kit.service import Context, Service
from roundhouse.kit.times import to_timestamp
from roundhouse.kit.tls import ServerTls
from roundhouse.v1 import (
    condition_pb2,
    deployment_pb2,
    deployment_service_pb2,
    errors_pb2,
    event_pb2,
    event_service_pb2,
    inference_service_pb2,
    log_pb2,
    node_service_pb2,
    watch_pb2,
)
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_nodes import GIB, ScriptedNodes
from tests.support.scripted_watch import write_changes

_STAGES = (
    deployment_pb2.REPLICA_STATE_PREPARING,
    deployment_pb2.REPLICA_STATE_STARTING,
    deployment_pb2.REPLICA_STATE_READY,
)
_STAGE_S = 0.02
LOADING = deployment_pb2.LaunchProgress(
    stage=deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS, fraction=0.25, done_bytes=GIB, total_bytes=4 * GIB
)


class ScriptedCluster:
    """DeploymentService. `deployments/demo` is READY from the start: three replicas on two GPUs."""

    def __init__(self) -> None:
        self.deployments: dict[str, deployment_pb2.Deployment] = {}
        self.replicas: dict[str, deployment_pb2.Replica] = {}
        self.gone: list[str] = []
        self.changes = Latest(None)
        self._tasks: set[asyncio.Task[None]] = set()
        demo = deployment_pb2.Deployment(
            name="deployments/demo", replica_count=3, model=deployment_pb2.ModelSource(builtin="demo"), engine="torch"
        )
        self._add(demo)
        for replica in self.replicas.values():
            self._serve(replica)
        self._refresh(demo.name)

    # ------------------------------------------------------------------------------------------------ deployments

    async def CreateDeployment(
        self, request: deployment_service_pb2.CreateDeploymentRequest, context: Context
    ) -> deployment_service_pb2.CreateDeploymentResponse:
        wanted = request.deployment
        if wanted.name in self.deployments:
            raise AlreadyExists(f'deployment "{wanted.name}" exists: pick another name, or terminate it first')
        if wanted.replica_count < 0:
            violation = FieldViolation("deployment.replica_count", "-1 is out of range: give 0 to 1000")
            raise InvalidArgument(f"{violation.field}: {violation.description}", fields=[violation])
        if wanted.model.path == "/missing":
            raise NotFound("no node has /missing: check the path", reason=errors_pb2.ERROR_REASON_MODEL_NOT_FOUND)
        if wanted.placement.memory_bytes > 24 * GIB and not request.allow_pending:
            lacks = [
                QuotaViolation(f"nodes/one/gpus/{index}", "needs 30 GiB, has 24 GiB available") for index in range(2)
            ]
            raise NoCapacity('replica "big-0" needs 30 GiB on a GPU; the best has 24 GiB: ask for less', quota=lacks)
        self.add(wanted)
        return deployment_service_pb2.CreateDeploymentResponse(deployment=self.deployments[wanted.name])

    async def GetDeployment(
        self, request: deployment_service_pb2.GetDeploymentRequest, context: Context
    ) -> deployment_service_pb2.GetDeploymentResponse:
        return deployment_service_pb2.GetDeploymentResponse(deployment=self._find(request.name))

    async def ListDeployments(
        self, request: deployment_service_pb2.ListDeploymentsRequest, context: Context
    ) -> deployment_service_pb2.ListDeploymentsResponse:
        names = [name for name in sorted(self.deployments) if name > request.page_token]
        return deployment_service_pb2.ListDeploymentsResponse(  # pages of one, so that every client has to turn them
            deployments=[self.deployments[name] for name in names[:1]],
            next_page_token=names[0] if len(names) > 1 else "",
            unreachable=["nodes/two"],
            cursor="here",
        )

    async def ScaleDeployment(
        self, request: deployment_service_pb2.ScaleDeploymentRequest, context: Context
    ) -> deployment_service_pb2.ScaleDeploymentResponse:
        deployment = self._find(request.name)
        deployment.replica_count = request.replica_count
        deployment.generation += 1
        self.add(deployment)
        return deployment_service_pb2.ScaleDeploymentResponse(deployment=deployment)

    async def DeleteDeployment(
        self, request: deployment_service_pb2.DeleteDeploymentRequest, context: Context
    ) -> deployment_service_pb2.DeleteDeploymentResponse:
        deployment = self._find(request.name)
        deployment.state = deployment_pb2.DEPLOYMENT_STATE_DELETING
        deployment.delete_time.CopyFrom(to_timestamp(0))
        if deployment.labels["script"] != "undying":
            self._start(self._vanish(deployment.name))
        return deployment_service_pb2.DeleteDeploymentResponse(deployment=deployment)

    async def WatchDeployments(self, request: deployment_service_pb2.WatchDeploymentsRequest, context: Context) -> None:
        kind = deployment_service_pb2.DeploymentEvent
        await write_changes(
            context, self.changes, deployment_service_pb2.WatchDeploymentsResponse, kind, lambda: self.deployments
        )

    async def ListReplicas(
        self, request: deployment_service_pb2.ListReplicasRequest, context: Context
    ) -> deployment_service_pb2.ListReplicasResponse:
        return deployment_service_pb2.ListReplicasResponse(replicas=self._replicas_of(request.parent).values())

    async def WatchReplicas(self, request: deployment_service_pb2.WatchReplicasRequest, context: Context) -> None:
        self._replicas_of(request.parent)
        kind = deployment_service_pb2.ReplicaEvent

        def present() -> dict[str, deployment_pb2.Replica]:
            return {
                n: each
                for n, each in self.replicas.items()
                if request.parent[-2:] == "/-" or n.startswith(f"{request.parent}/")
            }

        await write_changes(context, self.changes, deployment_service_pb2.WatchReplicasResponse, kind, present)

    async def StreamLogs(self, request: deployment_service_pb2.StreamLogsRequest, context: Context) -> None:
        """Repeats the request: a line to stdout, with a bell in it, and one to stderr; with `follow` it stays open."""
        replica = self.replicas.get(request.name)
        if replica is None:
            self._find(request.name.rpartition("/replicas/")[0])
            raise NotFound(f"{request.name} is unknown", reason=errors_pb2.ERROR_REASON_REPLICA_NOT_FOUND)
        if replica.state != deployment_pb2.REPLICA_STATE_READY:
            raise NotReady(f"{request.name} has no logs to show: it is PENDING")
        asked = " ".join(f"{field.name}={value}" for field, value in request.ListFields() if field.name != "since_time")
        age = f"{time.time() - request.since_time.seconds:.0f}" if request.HasField("since_time") else "any"
        lines = [
            log_pb2.LogLine(stream=log_pb2.LOG_STREAM_STDOUT, text=f"\asince {age} {asked}"),
            log_pb2.LogLine(stream=log_pb2.LOG_STREAM_STDERR, text="aside", skipped_byte_count=2048),
        ]
        await context.write(deployment_service_pb2.StreamLogsResponse(lines=lines))
        if request.follow:
            await asyncio.Event().wait()

    # ----------------------------------------------------------------------------------------------------- script

    def add(self, wanted: deployment_pb2.Deployment) -> None:
        """Stores a deployment and begins its act."""
        self._add(wanted)
        self._play(wanted)

    def _add(self, wanted: deployment_pb2.Deployment) -> None:
        deployment = deployment_pb2.Deployment()
        deployment.CopyFrom(wanted)
        if not deployment.HasField("replica_count"):
            deployment.replica_count = 1
        deployment.generation = max(1, deployment.generation)
        deployment.observed_generation = deployment.generation
        self.deployments[deployment.name] = deployment
        for index in range(deployment.replica_count):
            name = f"{deployment.name}/replicas/{index}"
            self.replicas.setdefault(
                name,
                deployment_pb2.Replica(
                    name=name,
                    uid=f"uid-{name}",
                    state=deployment_pb2.REPLICA_STATE_PENDING,
                    node="nodes/one",
                    gpus=[deployment_pb2.ReplicaGpu(uuid=f"SIM-one-{index % 2}", index=index % 2)],
                    reserved_memory_bytes=GIB,
                    engine_pid=4000 + index,
                    engine_address=f"127.0.0.1:{41000 + index}",
                ),
            )
        self._refresh(deployment.name)

    def _play(self, deployment: deployment_pb2.Deployment) -> None:
        acts = {
            "crash": self._crash, "stuck": self._stick, "short": self._fall_short, "mute": self._mute,
            "vanish": self._vanish,
        }  # fmt: skip
        self._start(acts.get(deployment.labels["script"], self._succeed)(deployment.name))

    async def _succeed(self, name: str) -> None:
        for stage in _STAGES:
            for replica in self._replicas_of(name).values():
                await asyncio.sleep(_STAGE_S)
                replica.state = max(replica.state, stage)
                if replica.state == deployment_pb2.REPLICA_STATE_READY:
                    self._serve(replica)
                self._refresh(name)
        for surplus in [
            n for n in self._replicas_of(name) if int(n.rpartition("/")[2]) >= self._find(name).replica_count
        ]:
            await asyncio.sleep(_STAGE_S)
            del self.replicas[surplus]
            self._refresh(name)

    async def _crash(self, name: str) -> None:
        replica = self.replicas[f"{name}/replicas/0"]
        for death in range(3):
            for state in (deployment_pb2.REPLICA_STATE_STARTING, deployment_pb2.REPLICA_STATE_FAILED):
                await asyncio.sleep(_STAGE_S)
                replica.state = state
                replica.restart_count = death
                replica.last_exit.CopyFrom(
                    deployment_pb2.EngineExit(exit_code=3, stderr_lines=["loading", "model.safetensors is cut off"])
                )
                self._refresh(name)

    async def _stick(self, name: str) -> None:
        for replica in self._replicas_of(name).values():
            replica.state = deployment_pb2.REPLICA_STATE_STARTING
            replica.message = "loading weights"
            replica.progress.CopyFrom(LOADING)
        self._refresh(name)

    async def _fall_short(self, name: str) -> None:
        """Succeeds with three replicas and is stuck with more."""
        await (self._succeed if self._find(name).replica_count <= 3 else self._stick)(name)

    async def _mute(self, name: str) -> None:
        await self._succeed(name)
        for replica in self._replicas_of(name).values():
            replica.message = "the engine does not answer: it has been silent for 6 s"
        self._refresh(name)

    def _serve(self, replica: deployment_pb2.Replica) -> None:
        replica.state = deployment_pb2.REPLICA_STATE_READY
        replica.message = "serving"

    async def _vanish(self, name: str) -> None:
        for replica in list(self._replicas_of(name)):
            await asyncio.sleep(_STAGE_S)
            self.replicas.pop(replica, None)
            self._refresh(name)
        self.deployments.pop(name, None)
        self.changes.set(None)

    def _refresh(self, name: str) -> None:
        deployment = self.deployments[name]
        states = [each.state for each in self._replicas_of(name).values()][: deployment.replica_count]
        ready = states.count(deployment_pb2.REPLICA_STATE_READY)
        deployment.ready_replica_count = ready
        if deployment.state != deployment_pb2.DEPLOYMENT_STATE_DELETING:
            deployment.state = (
                deployment_pb2.DEPLOYMENT_STATE_READY
                if ready == deployment.replica_count
                else deployment_pb2.DEPLOYMENT_STATE_DEGRADED
                if ready
                else deployment_pb2.DEPLOYMENT_STATE_STARTING
            )
        deployment.ClearField("conditions")
        deployment.conditions.add(type="Placed", status=condition_pb2.CONDITION_STATUS_TRUE)
        self.changes.set(None)

    # ---------------------------------------------------------------------------------------------------- private

    def _find(self, name: str) -> deployment_pb2.Deployment:
        if name not in self.deployments:
            raise NotFound(f'deployment "{name.removeprefix("deployments/")}" is unknown: list them, or create it')
        return self.deployments[name]

    def _replicas_of(self, parent: str) -> dict[str, deployment_pb2.Replica]:
        if parent == "deployments/-":
            return dict(self.replicas)
        self._find(parent)
        return {name: each for name, each in self.replicas.items() if name.startswith(f"{parent}/")}

    def _start(self, act: object) -> None:
        task = asyncio.ensure_future(act)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class ScriptedEvents:
    """EventService. Something has happened to `demo` and to a node; a watch shows one more thing, and stays open."""

    def __init__(self) -> None:
        self.events = [
            _event(1, "deployments/demo", "Created", "it is wanted with 3 replicas"),
            _event(2, "deployments/demo/replicas/1", "Died", "the engine was killed by SIGKILL", count=3),
            _event(3, "nodes/one", "Lost", "it does not report"),
        ]

    async def ListEvents(
        self, request: event_service_pb2.ListEventsRequest, context: Context
    ) -> event_service_pb2.ListEventsResponse:
        return event_service_pb2.ListEventsResponse(
            events=[each for each in self.events if each.object.startswith(request.object)], cursor="here"
        )

    async def WatchEvents(self, request: event_service_pb2.WatchEventsRequest, context: Context) -> None:
        if request.cursor == "old":
            raise TooLong("no longer kept: list again", reason=errors_pb2.ERROR_REASON_RELIST)
        notices = [event_service_pb2.EventNotice(changed=each, cursor="here") for each in self.events]
        notices.append(event_service_pb2.EventNotice(bookmark=watch_pb2.Bookmark(), cursor="here"))
        if request.cursor:
            notices = [event_service_pb2.EventNotice(changed=_event(4, "nodes/one", "Returned", "it reports again"))]
        await context.write(event_service_pb2.WatchEventsResponse(events=notices))
        await asyncio.Event().wait()


def _event(number: int, object_: str, reason: str, message: str, count: int = 1) -> event_pb2.Event:
    return event_pb2.Event(
        name=f"events/{number}",
        object=object_,
        reason=reason,
        message=message,
        type=event_pb2.EVENT_TYPE_NORMAL if count == 1 else event_pb2.EVENT_TYPE_WARNING,
        count=count,
        first_time=to_timestamp(1000.0),
        last_time=to_timestamp(2000.0 - number),
    )


@contextlib.asynccontextmanager
async def scripted_cluster(
    port: int = 0, tls: ServerTls | None = None
) -> AsyncIterator[tuple[Serving, ScriptedCluster, ScriptedInference]]:
    """Serves a scripted cluster for the block."""
    cluster, inference = ScriptedCluster(), ScriptedInference()
    nodes = ScriptedNodes(cluster.changes, cluster.replicas.values)
    services = [
        Service(deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"], cluster),
        Service(event_service_pb2.DESCRIPTOR.services_by_name["EventService"], ScriptedEvents()),
        Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], nodes),
        Service(inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"], inference),
    ]
    async with serve(Listen("127.0.0.1", port, tls), services, grace_s=0.0) as serving:
        yield serving, cluster, inference


async def _main(stop: asyncio.Event) -> None:
    logs.configure("error")
    async with scripted_cluster() as (serving, _, _):
        print(serving.address, flush=True)
        await stop.wait()


if __name__ == "__main__":
    raise SystemExit(run(_main, "scripted cluster"))
