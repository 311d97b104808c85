"""Writes down what is wanted, as the message that `Deployments.create` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from roundhouse.client.names import deployment_name, node_name
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration
from roundhouse.options.engine_options import METHODS
from roundhouse.v1 import deployment_pb2


class EngineSettings(TypedDict, total=False):
    """Settings of each engine, as in `EngineOptions`. None is as absent: left to `env`, then to the cluster."""

    max_model_len: int | None
    fit_max_model_len: bool | None  # as long as fits
    batch_size: int | None
    batch_interval_s: float | None
    max_num_batched_tokens: int | None
    kv_cache_memory_bytes: int | None
    fit_kv_cache_memory: bool | None  # as much as fits
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
    enable_thinking: bool | None
    arguments: Mapping[str, str]  # what only this type of engine knows


class ModelSettings(TypedDict, total=False):
    """The model, if it is no path: exactly one of `builtin`, `family` and `repository`, and what says more of it."""

    builtin: str | None  # one that ships with us: demo
    family: str | None  # one of the catalog
    size_in_billions: str | None
    model_format: str | None
    model_quantization: str | None
    repository: str | None  # of the Hugging Face hub, `owner/name`
    revision: str | None


class PlacementSettings(TypedDict, total=False):
    """Where replicas may go, as in `PlacementPolicy`. None is as absent."""

    strategy: str
    gpu_count: int | None
    memory_bytes: int | None
    memory_fraction: float | None  # a share of the GPU's memory instead
    allow_shared_gpu: bool | None
    gpus_per_replica: int | None  # 0 keeps a replica on the processors
    allowed_gpus: Mapping[str, Sequence[int | str]]  # indexes or UUIDs by node; all of it if empty; "-" is every node
    node_labels: Mapping[str, str]
    tolerations: Mapping[str, str | None]  # values by key; any value if None
    anti_affinity: Sequence[deployment_pb2.AntiAffinity]


class VirtualEnvSettings(TypedDict, total=False):
    """Python packages of the engines alone, as in `VirtualEnv`."""

    packages: Sequence[str]  # requirements: transformers==5.16.1
    constraints: Sequence[str]
    index_url: str
    find_links: Sequence[str]  # directories on the nodes, or URLs
    inherit: bool | None  # whether the packages of the node's agent are there, too; they are by default


class Settings(ModelSettings, PlacementSettings, EngineSettings, total=False):
    """All of them."""


def deployment(
    name: str,
    *,
    path: str | None = None,
    engine: str = "",
    replica_count: int | None = None,
    env: Mapping[str, str] | None = None,
    secret_env: Mapping[str, str] | None = None,
    virtual_env: VirtualEnvSettings | None = None,
    labels: Mapping[str, str] | None = None,
    routing_policy: str | None = None,
    **settings: Unpack[Settings],
) -> deployment_pb2.Deployment:
    """Returns a deployment of the model at `path` on the nodes, or of another source (`builtin="demo"`).

    What is None is left to the cluster. `secret_env` is shown to nobody but the engines; without `virtual_env` they run
    with the packages of their node's agent. Fields without a parameter here can be set on the message. Raises
    InvalidArgument for two models, and for what the contract cannot hold.
    """
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    try:
        return deployment_pb2.Deployment(
            name=deployment_name(name),
            labels=labels,
            model=_model(path, _taken(given, ModelSettings)),
            engine=engine,
            replica_count=replica_count,
            placement=_placement(_taken(given, PlacementSettings)),
            engine_options=_options(given),
            env=[
                *(deployment_pb2.EnvVar(name=key, value=value) for key, value in (env or {}).items()),
                *(deployment_pb2.EnvVar(name=key, secret_value=value) for key, value in (secret_env or {}).items()),
            ],
            virtual_env=None if virtual_env is None else _virtual_env(virtual_env),
            routing_policy=routing_policy,
        )
    except (ValueError, OverflowError) as error:
        raise invalid("deployment", f"{error}: the contract cannot carry it") from error


def _taken(given: dict[str, Any], kind: type) -> dict[str, Any]:
    """Takes the settings of one kind out."""
    return {name: given.pop(name) for name in kind.__annotations__ if name in given}


def _model(path: str | None, settings: dict[str, Any]) -> deployment_pb2.ModelSource:
    sources = {"path": path, **{name: settings.pop(name, None) for name in ("builtin", "family", "repository")}}
    named = [f'the {name} "{value}"' for name, value in sources.items() if value is not None]
    if len(named) > 1:
        raise invalid("model", f"{' and '.join(named)} are two models: name one")
    family, repository, revision = sources["family"], sources["repository"], settings.pop("revision", None)
    if settings and family is None:
        raise invalid("model", f"{', '.join(settings)} can be said of a family only: leave it out")
    if revision is not None and repository is None:
        raise invalid("model", "a revision can be said of a repository only: leave it out")
    if family is not None:
        details = {name.removeprefix("model_"): value for name, value in settings.items()}
        return deployment_pb2.ModelSource(family=deployment_pb2.FamilyModel(family=family, **details))
    if repository is not None:
        files = deployment_pb2.HubRepository(id=repository, revision=revision)
        return deployment_pb2.ModelSource(repository=files)
    return deployment_pb2.ModelSource(path=path, builtin=sources["builtin"])


def _virtual_env(settings: VirtualEnvSettings) -> deployment_pb2.VirtualEnv:
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    return deployment_pb2.VirtualEnv(**given)


def _placement(settings: dict[str, Any]) -> deployment_pb2.PlacementPolicy:
    allowed, tolerated = settings.pop("allowed_gpus", {}), settings.pop("tolerations", {})
    return deployment_pb2.PlacementPolicy(
        allowed_gpus=[_gpus_of(node, gpus) for node, gpus in allowed.items()],
        tolerations=[deployment_pb2.Toleration(key=key, value=value) for key, value in tolerated.items()],
        **settings,
    )


def _gpus_of(node: str, gpus: Sequence[int | str]) -> deployment_pb2.NodeGpus:
    return deployment_pb2.NodeGpus(
        node=node_name(node),
        indexes=[each for each in gpus if isinstance(each, int)],
        uuids=[each for each in gpus if isinstance(each, str)],
    )


def _options(fields: dict[str, Any]) -> deployment_pb2.EngineOptions:
    interval_s = fields.pop("batch_interval_s", None)
    method, count = fields.pop("speculation", None), fields.pop("speculation_tokens", None)
    draft_model = fields.pop("draft_model", None)
    arguments = fields.pop("arguments", {})
    # A name that is none of the contract's is a ValueError here.
    options = deployment_pb2.EngineOptions(**fields)
    for key, value in arguments.items():
        options.arguments.add(name=key, value=value)
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
