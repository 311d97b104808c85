"""What a simulated node reports: eight busy GPUs with all that NVML tells of them. Pure; no clock, no wire.

Numbers change with every report, so that nothing can be remembered of the report before.
"""

from __future__ import annotations

import math

from roundhouse.internal.v1 import agent_service_pb2 as pb
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_pb2, node_pb2
from roundhouse.v1.deployment_pb2 import ModelSource

GIB = 1 << 30
GPU_BYTES = 80 * GIB
HOST_BYTES = 1024 * GIB
_FOREIGN_BYTES = 3 * GIB
_PERIOD = 40  # reports, in which the load of a GPU goes up and down once
_GONE, _READY = deployment_pb2.REPLICA_STATE_STOPPED, deployment_pb2.REPLICA_STATE_READY


class SimulatedNode:
    """One node: what it was told to run runs at once, and is gone as soon as it is to stop."""

    def __init__(self, number: int, *, gpu_count: int) -> None:
        self.node_id = f"node-{number:04}"
        self._number = number
        self._engines: dict[str, pb.EngineReport] = {}  # by replica uid
        self._report = pb.JoinRequest(
            protocol_version=1,
            lowest_protocol_version=1,
            node_id=self.node_id,
            node_uid=f"00000000-0000-4000-8000-{number:012}",
            agent_uid=f"00000000-0000-4000-9000-{number:012}",
            boot_id=f"00000000-0000-4000-a000-{number:012}",
            machine_id=f"{number:032x}",
            node=pb.NodeFacts(
                hostname=f"host-{number:04}.example",
                agent_version="0.1.0",
                labels={"rack": f"r{number // 16}", "zone": f"z{number % 4}"},
                gpus=[_gpu(number, index, gpu_count) for index in range(gpu_count)],
                host=node_pb2.Host(cpu_count=128, total_memory_bytes=HOST_BYTES),
                driver_version="570.86.15",
            ),
        )
        self._probes: tuple[ModelSource, ...] = ()

    @property
    def running_count(self) -> int:
        """How many engines run."""
        return sum(each.state == _READY for each in self._engines.values())

    def take(self, assignment: pb.JoinResponse) -> bool:
        """Takes over an assignment; returns whether it says anything new."""
        before = self._said()
        self._report.applied_order.CopyFrom(assignment.order)
        self._probes = tuple(assignment.model_probes)
        present, self._engines = self._engines, {}
        for each in assignment.engines:
            engine = present.get(each.replica_uid)
            if each.desired_state == pb.DESIRED_STATE_STOPPED:
                if engine is not None:
                    engine.state = _GONE
                    self._engines[each.replica_uid] = engine
            else:
                self._engines[each.replica_uid] = engine or _engine(each, self._number)
        return self._said() != before

    def report(self, time_s: float, number: int, *, are_engines_busy: bool) -> bytes:
        """Returns report number `number`, serialized, of a sample taken at `time_s`."""
        report, sampled = self._report, to_timestamp(time_s)
        report.node.sample_time.CopyFrom(sampled)
        load = 0.5 + 0.5 * math.sin(2 * math.pi * (number + self._number) / _PERIOD)
        report.node.host.cpu_fraction = load
        report.node.host.available_memory_bytes = HOST_BYTES // 2 + number * 4096
        for gpu in report.node.gpus:
            gpu.utilization_fraction = load
            gpu.last_utilization_fraction = load
            gpu.memory_utilization_fraction = load / 2
            gpu.last_memory_utilization_fraction = load / 2
            gpu.power_watts = 100 + 600 * load
            gpu.temperature_celsius = 40 + 40 * load
            gpu.sm_clock_mhz = 1980 - number % _PERIOD
            gpu.sample_time.CopyFrom(sampled)
        if are_engines_busy:
            for each in self._engines.values():
                each.load.running_count = number % 32
                each.load.step_count = number
        del report.engines[:], report.models[:]
        report.engines.extend(self._engines.values())
        report.models.extend(map(_facts, self._probes))
        return report.SerializeToString()

    def _said(self) -> object:
        order = self._report.applied_order
        states = {uid: engine.state for uid, engine in self._engines.items()}
        return order.term, order.generation, self._probes, states


def _gpu(node: int, index: int, gpu_count: int) -> node_pb2.Gpu:
    return node_pb2.Gpu(
        uuid=_gpu_uuid(node, index),
        index=index,
        product_name="NVIDIA H100 80GB HBM3",
        state=node_pb2.GPU_STATE_OK,
        total_memory_bytes=GPU_BYTES,
        used_memory_bytes=_FOREIGN_BYTES,
        free_memory_bytes=GPU_BYTES - _FOREIGN_BYTES,
        foreign_memory_bytes=_FOREIGN_BYTES,
        driver_memory_bytes=GIB // 2,
        processes=[
            node_pb2.GpuProcess(pid=1000 + index, name="Xorg", used_memory_bytes=GIB),
            node_pb2.GpuProcess(pid=2000 + index, name="python3", used_memory_bytes=2 * GIB),
        ],
        max_sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        throttle_reasons=[node_pb2.GPU_THROTTLE_REASON_POWER_CAP],
        power_limit_watts=700,
        ecc=node_pb2.GpuEcc(is_enabled=True, corrected_count=3),
        mig_mode=node_pb2.GPU_MIG_MODE_DISABLED,
        links=[
            node_pb2.GpuLink(peer_index=peer, kind=node_pb2.GPU_LINK_KIND_NVLINK)
            for peer in range(gpu_count)
            if peer != index
        ],
        nvlink_island=0,
    )


def _gpu_uuid(node: int, index: int) -> str:
    return f"GPU-{node:08x}-0000-4000-8000-{index:012x}"


def _engine(assigned: pb.EngineAssignment, node: int) -> pb.EngineReport:
    return pb.EngineReport(
        replica=assigned.replica,
        replica_uid=assigned.replica_uid,
        placement_epoch=assigned.placement_epoch,
        deployment_generation=assigned.deployment_generation,
        state=_READY,
        engine_uuid=f"engine-{assigned.replica_uid}",
        engine_key=b"k" * 32,
        address=f"127.0.0.1:{20000 + node}",  # nobody calls it
        pid=4000 + node,
        gpu_uuids=assigned.gpu_uuids,
        reserved_memory_bytes=assigned.reserved_memory_bytes,
        load=deployment_pb2.EngineLoad(total_block_count=4096, free_block_count=4096),
        fingerprint="f" * 64,
    )


def _facts(source: ModelSource) -> pb.ModelFacts:
    """A model like the one that ships with us."""
    return pb.ModelFacts(
        source=source,
        state=pb.MODEL_STATE_OK,
        model_type="qwen3",
        weight_bytes=5_600_000,
        parameter_count=2_800_000,
        dtype="bfloat16",
        context_tokens=2048,
        kv_elements_per_token=1024,
    )
