"""Deployments as they are stored, in a few words."""

from __future__ import annotations

from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1.deployment_pb2 import Deployment, MemoryNeed, ModelSource, PlacementPolicy

GIB = 1024**3


def deployment_record(
    deployment: str = "chat",
    replica_count: int = 1,
    *,
    need_gib: int | None = 5,
    generation: int = 1,
    uid: str = "",
    is_deleting: bool = False,
) -> DeploymentRecord:
    """Returns a deployment of the demo model; without a need if that is None."""
    return DeploymentRecord(
        deployment=Deployment(
            name=f"deployments/{deployment}",
            uid=uid or f"uid-{deployment}",
            generation=generation,
            model=ModelSource(builtin="demo"),
            engine="torch",
            replica_count=replica_count,
            placement=PlacementPolicy(strategy="idle_first", allow_shared_gpu=True),
            delete_time=to_timestamp(1.0) if is_deleting else None,
        ),
        engine_spec=EngineSpec(deployment=deployment, engine="torch", model=ModelSource(builtin="demo")),
        memory_need=None if need_gib is None else MemoryNeed(total_bytes=need_gib * GIB),
        drain_grace=to_duration(30.0),
    )
