"""Writes down what is wanted, as the message that `Deployments.create` takes."""

from __future__ import annotations

from collections.abc import Mapping

from roundhouse.client.names import deployment_name
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration
from roundhouse.v1 import deployment_pb2


def deployment(
    name: str,
    *,
    path: str | None = None,
    builtin: str | None = None,
    engine: str = "",
    replica_count: int | None = None,
    strategy: str = "",
    gpu_count: int | None = None,
    memory_bytes: int | None = None,
    max_model_len: int | None = None,
    batch_size: int | None = None,
    batch_interval_s: float | None = None,
    kv_cache_memory_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> deployment_pb2.Deployment:
    """Returns a deployment of the model at `path` on the nodes, or of one that ships with us (`builtin="demo"`).

    What is None is left to the cluster. Fields without a parameter here can be set on the message. Raises
    InvalidArgument for two models, and for a number that the contract cannot hold.
    """
    if path is not None and builtin is not None:
        raise invalid("model", f'the path {path} and the builtin "{builtin}" are two models: name one')
    try:
        return deployment_pb2.Deployment(
            name=deployment_name(name),
            labels=labels,
            model=deployment_pb2.ModelSource(path=path, builtin=builtin),
            engine=engine,
            replica_count=replica_count,
            placement=deployment_pb2.PlacementPolicy(strategy=strategy, gpu_count=gpu_count, memory_bytes=memory_bytes),
            engine_options=deployment_pb2.EngineOptions(
                max_model_len=max_model_len,
                batch_size=batch_size,
                batch_interval=None if batch_interval_s is None else to_duration(batch_interval_s),
                kv_cache_memory_bytes=kv_cache_memory_bytes,
            ),
            env=[deployment_pb2.EnvVar(name=key, value=value) for key, value in (env or {}).items()],
        )
    except (ValueError, OverflowError) as error:
        raise invalid("deployment", f"{error}: the contract cannot carry it") from error
