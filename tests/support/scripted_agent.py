"""A node agent that plays a script: it speaks `Join` over real gRPC and runs engines in its imagination only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from roundhouse.internal.v1 import agent_service_pb2 as pb
from roundhouse.internal.v1 import agent_service_pb2_grpc
from roundhouse.kit.channel import cancelling, open_channel
from roundhouse.kit.latest import Latest
from roundhouse.kit.tls import ClientTls
from roundhouse.v1 import deployment_pb2, node_pb2
from roundhouse.v1.deployment_pb2 import ModelSource

GIB = 1 << 30

T = TypeVar("T")


def demo_facts() -> pb.ModelFacts:
    """A model whose replica takes a little over half a GiB."""
    return pb.ModelFacts(
        source=ModelSource(builtin="demo"),
        state=pb.MODEL_STATE_OK,
        model_type="qwen3",
        weight_bytes=5_600_000,
        parameter_count=2_800_000,
        dtype="bfloat16",
        context_tokens=2048,
        kv_elements_per_token=1024,
    )


class ScriptedAgent:
    """One node. What it reports is changed by changing its fields, then calling `report`."""

    def __init__(self, node_id: str, *, gpu_count: int = 2, gpu_bytes: int = 24 * GIB, machine: str = "m1") -> None:
        self.node_id, self.node_uid, self.agent_uid, self.machine = node_id, f"uid-of-{node_id}", "agent-1", machine
        self.gpus = [simulated_gpu(node_id, index, gpu_bytes) for index in range(gpu_count)]
        self.labels: dict[str, str] = {}
        self.taints: list[node_pb2.Taint] = []
        self.driver_version = ""
        self.models: dict[bytes, pb.ModelFacts] = {}
        self.at_hub: dict[bytes, pb.ModelFacts] = {}  # what it finds there, if it is able to ask
        self.capabilities: list[str] = []
        self.engines: dict[str, pb.EngineReport] = {}
        self.refusals: dict[str, str] = {}
        self.cached: list[pb.CachedModelFacts] = []
        self.other_order: pb.Order | None = None  # of the cluster that it obeys instead
        self.is_keen = True  # engines become READY as soon as they are assigned, and end as soon as they are to stop
        self.period_s = 1.0
        self.assignment: Latest[pb.JoinResponse | None] = Latest(None)
        self.probed: list[ModelSource] = []
        self.hub_probed: list[ModelSource] = []
        self._outbox: asyncio.Queue[pb.JoinRequest] = asyncio.Queue()
        self.knows(demo_facts())

    def knows(self, facts: pb.ModelFacts) -> None:
        """Lets it answer about a model from now on."""
        self.models[facts.source.SerializeToString()] = facts

    def finds_at_hub(self, facts: pb.ModelFacts) -> None:
        """Lets it find a model at the hub from now on."""
        self.capabilities = ["hub"]
        found = pb.ModelFacts()
        found.CopyFrom(facts)
        found.is_from_hub = True
        self.at_hub[facts.source.SerializeToString()] = found

    def report(self) -> None:
        """Sends all that it knows."""
        self._outbox.put_nowait(self.message())

    def message(self) -> pb.JoinRequest:
        """Returns all that it knows."""
        now = self.assignment.get()
        asked = [] if now is None else [each.SerializeToString() for each in now.model_probes]
        asked_of_hub = [] if now is None else [each.SerializeToString() for each in now.hub_probes]
        return pb.JoinRequest(
            protocol_version=1,
            lowest_protocol_version=1,
            node_id=self.node_id,
            node_uid=self.node_uid,
            agent_uid=self.agent_uid,
            boot_id="boot",
            machine_id=self.machine,
            applied_order=self.other_order or (None if now is None else now.order),
            refusals=[pb.Refusal(replica_uid=uid, message=text) for uid, text in self.refusals.items()],
            node=pb.NodeFacts(
                hostname=f"host-of-{self.node_id}",
                agent_version="test",
                labels=self.labels,
                taints=self.taints,
                driver_version=self.driver_version,
                gpus=self.gpus,
                host=node_pb2.Host(cpu_count=2, total_memory_bytes=24 * GIB, available_memory_bytes=20 * GIB),
            ),
            engines=self.engines.values(),
            models=[*map(self._facts, asked), *map(self._facts_of_hub, asked_of_hub)],
            capabilities=self.capabilities,
            cached_models=self.cached,
        )

    @contextlib.asynccontextmanager
    async def joined(
        self, address: str, *, ca: Path | None = None, client: ClientTls | None = None
    ) -> AsyncIterator[ScriptedAgent]:
        """Holds a session for the block, with a certificate if it has one; the first assignment is there then."""
        async with open_channel(address, ca=ca, client=client) as channel:
            call = agent_service_pb2_grpc.AgentServiceStub(channel).Join()
            async with cancelling(call), asyncio.TaskGroup() as group:
                await call.write(self.message())
                self._take_over(await call.read())
                tasks = [group.create_task(each) for each in (self._read(call), self._write(call), self._tick())]
                self.report()
                yield self
                for task in tasks:
                    task.cancel()

    async def assigned(self, holds: Callable[[pb.JoinResponse], bool]) -> pb.JoinResponse:
        """Waits for an assignment of which something holds."""
        async for each in self.assignment.watch():
            if each is not None and holds(each):
                return each
        raise AssertionError("a watch never ends")

    def become(self, state: deployment_pb2.ReplicaState, uids: Iterable[str] | None = None, **fields: Any) -> None:
        """Gives engines (all, if not said) another state, and reports it."""
        for uid in list(self.engines) if uids is None else uids:
            engine = self.engines[uid]
            engine.state = state
            for name, value in fields.items():
                setattr(engine, name, value)
        self.report()

    async def _read(self, call: Any) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            self._take_over(response)
            self.report()

    async def _write(self, call: Any) -> None:
        while True:
            await call.write(await self._outbox.get())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.period_s)
            self.report()

    def _take_over(self, response: pb.JoinResponse) -> None:
        assert isinstance(response, pb.JoinResponse), "the control plane ended the session"
        self.probed += response.model_probes
        self.hub_probed += response.hub_probes
        if self.is_keen:
            gone = {(each.repository, each.commit) for each in response.cached_model_deletions}
            self.cached = [each for each in self.cached if (each.key.repository, each.key.commit) not in gone]
        mentioned = {each.replica_uid for each in response.engines}
        self.engines = {uid: each for uid, each in self.engines.items() if uid in mentioned}
        for each in response.engines:
            if each.desired_state == pb.DESIRED_STATE_STOPPED:
                if self.is_keen and each.replica_uid in self.engines:
                    self.engines[each.replica_uid].state = deployment_pb2.REPLICA_STATE_STOPPED
            elif each.replica_uid not in self.engines and each.replica_uid not in self.refusals:
                self.engines[each.replica_uid] = self._engine(each)
        self.assignment.set(response)

    def _engine(self, assigned: pb.EngineAssignment) -> pb.EngineReport:
        number = len(self.engines)
        return pb.EngineReport(
            replica=assigned.replica,
            replica_uid=assigned.replica_uid,
            placement_epoch=assigned.placement_epoch,
            deployment_generation=assigned.deployment_generation,
            state=deployment_pb2.REPLICA_STATE_READY if self.is_keen else deployment_pb2.REPLICA_STATE_STARTING,
            engine_uuid=f"engine-of-{assigned.replica_uid}",
            engine_key=b"k" * 32,
            address=f"127.0.0.1:{40000 + number}",
            pid=1000 + number,
            gpu_uuids=assigned.gpu_uuids,
            reserved_memory_bytes=assigned.reserved_memory_bytes,
            load=deployment_pb2.EngineLoad(total_block_count=100, free_block_count=100),
        )

    def _facts(self, asked: bytes) -> pb.ModelFacts:
        missing = pb.ModelFacts(source=ModelSource.FromString(asked), state=pb.MODEL_STATE_NOT_FOUND)
        return self.models.get(asked, missing)

    def _facts_of_hub(self, asked: bytes) -> pb.ModelFacts:
        facts = pb.ModelFacts()
        facts.CopyFrom(self._facts(asked))
        facts.is_from_hub = True
        return self.at_hub.get(asked, facts)


def simulated_gpu(node_id: str, index: int, total_bytes: int) -> node_pb2.Gpu:
    """A GPU that nobody uses."""
    return node_pb2.Gpu(
        uuid=f"SIM-{node_id}-{index}",
        index=index,
        product_name="Simulated GPU",
        is_simulated=True,
        state=node_pb2.GPU_STATE_OK,
        total_memory_bytes=total_bytes,
        free_memory_bytes=total_bytes,
        utilization_fraction=0.0,
    )
