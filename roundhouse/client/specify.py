"""Writes down what is wanted, as the message that `Deployments.create` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from roundhouse.client.names import deployment_name
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration
from roundhouse.options.engine_options import METHODS
from roundhouse.v1 import deployment_pb2


class EngineSettings(TypedDict, total=False):
    """Settings of each engine, as in `EngineOptions`. None is as absent: left to `env`, then to the cluster."""

    max_model_len: int | None
    batch_size: int | None
    batch_interval_s: float | None
    max_num_batched_tokens: int | None
    kv_cache_memory_bytes: int | None
    block_size: int | None
    dtype: str | None
    max_waiting: int | None
    enable_prefix_caching: bool | None
    attention: str | None
    compile: bool | None
    quantization: str | None
    speculation: str | None  # `off`, `ngram` or `draft_model`
    speculation_tokens: int | None
    draft_model: str | None  # a path on the nodes


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
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **settings: Unpack[EngineSettings],
) -> deployment_pb2.Deployment:
    """Returns a deployment of the model at `path` on the nodes, or of one that ships with us (`builtin="demo"`).

    What is None is left to the cluster. Fields without a parameter here can be set on the message. Raises
    InvalidArgument for two models, and for what the contract cannot hold.
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
            engine_options=_options(settings),
            env=[deployment_pb2.EnvVar(name=key, value=value) for key, value in (env or {}).items()],
        )
    except (ValueError, OverflowError) as error:
        raise invalid("deployment", f"{error}: the contract cannot carry it") from error


def _options(settings: EngineSettings) -> deployment_pb2.EngineOptions:
    fields: dict[str, Any] = dict(settings)
    interval_s = fields.pop("batch_interval_s", None)
    method, count = fields.pop("speculation", None), fields.pop("speculation_tokens", None)
    draft_model = fields.pop("draft_model", None)
    # A name that is none of the contract's is a ValueError here.
    options = deployment_pb2.EngineOptions(**{name: value for name, value in fields.items() if value is not None})
    if interval_s is not None:
        options.batch_interval.CopyFrom(to_duration(interval_s))
    if method is not None:
        options.speculation.method = _method(method)
    if count is not None:
        options.speculation.token_count = count
    if draft_model is not None:
        options.speculation.draft_model.path = draft_model
    return options


def _method(name: str) -> deployment_pb2.SpeculationMethod:
    if name not in METHODS:
        raise invalid("speculation", f'"{name}" is unknown: use one of {", ".join(METHODS)}')
    return METHODS[name]
