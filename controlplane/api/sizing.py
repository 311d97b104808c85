"""Works out what the engines of a deployment are started with and need, from what nodes know of its model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

from controlplane import wire
from controlplane.api.checks import settings_of
from controlplane.fleet.models import Models
from controlplane.fleet.registry import Registry
from controlplane.model import Need
from controlplane.placement.fit import usable_gpus
from controlplane.placement.need import CacheOptions, EngineDevice, ModelSize, OptionInvalid, compute_need
from roundhouse.internal.v1.agent_service_pb2 import MODEL_STATE_NOT_FOUND, MODEL_STATE_OK, ModelFacts
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.kit.errors import FieldViolation, InvalidArgument, NotFound, Resource
from roundhouse.kit.fields import invalid
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_pb2 import (
    SPECULATION_METHOD_DRAFT_MODEL,
    Deployment,
    EngineOptions,
    ModelSource,
)

LOOKUP_S = 5.0  # a node looks at the headers of a model in milliseconds, and reports every second

# The most that computed options take in a spec: three numbers and the name of a number format.
COMPUTED_BYTES = 64

_DRAFT_MODEL = "deployment.engine_options.speculation.draft_model"

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Sized:
    """What one engine is started with, and the memory it needs."""

    spec: EngineSpec
    need: Need


class Sizing:
    """Asks nodes about models, and computes."""

    def __init__(self, registry: Registry, models: Models) -> None:
        self._registry, self._models = registry, models

    async def size(self, deployment: Deployment) -> Sized:
        """Returns the spec and the need of one replica.

        Raises NotReady (NO_NODE), NotFound (MODEL_NOT_FOUND), InvalidArgument (MODEL_BROKEN, or FIELD_INVALID for an
        option that the model cannot have) and DeadlineExceeded if no node answers.
        """
        facts = await self._facts(deployment.model)
        speculation = settings_of(deployment).speculation
        drafts = speculation.method == SPECULATION_METHOD_DRAFT_MODEL
        draft = await self._facts(speculation.draft_model, _DRAFT_MODEL) if drafts else None
        return sized(deployment, facts, self._devices(), draft)

    async def _facts(self, source: ModelSource, field: str = "deployment.model") -> ModelFacts:
        facts = await self._models.facts(source, LOOKUP_S)
        if facts.state != MODEL_STATE_OK:
            raise _refusal(source, facts, field)
        return facts

    def _devices(self) -> Collection[EngineDevice]:
        """Returns on what the engines of this fleet compute: CPU-only nodes take none while there are GPUs."""
        reported = (gpu for known in self._registry.known.values() for gpu in known.report.node.gpus)
        simulated = {gpu.uuid for gpu in reported if gpu.is_simulated}
        usable = usable_gpus(self._registry.nodes().values())
        return {"cpu" if gpu.uuid in simulated else "cuda" for gpu in usable} or {"cpu"}


def engine_spec(deployment: Deployment) -> EngineSpec:
    """Returns what an engine of a deployment is started with, without what is computed."""
    return EngineSpec(
        deployment=wire.DEPLOYMENT.parse(deployment.name)[0],
        engine=deployment.engine,
        model=deployment.model,
        options=deployment.engine_options,
        env=deployment.env,
    )


def sized(
    deployment: Deployment, facts: ModelFacts, devices: Collection[EngineDevice], draft: ModelFacts | None = None
) -> Sized:
    """Returns the spec and the need of one replica, in a fleet whose engines compute on `devices`.

    draft: the model that guesses tokens ahead, if one does.
    """
    options, policy = settings_of(deployment), deployment.placement
    stated = CacheOptions(
        max_model_len=_given(options, "max_model_len", options.max_model_len),
        batch_size=_given(options, "batch_size", options.batch_size),
        block_size=_given(options, "block_size", options.block_size),
        kv_cache_memory_bytes=_given(options, "kv_cache_memory_bytes", options.kv_cache_memory_bytes),
        dtype=options.dtype,
    )
    # Where both kinds are, the larger need is reserved, that of an engine on the CPU: it holds wherever a replica goes.
    device: EngineDevice = "cpu" if "cpu" in devices else "cuda"
    memory_bytes = policy.memory_bytes if policy.HasField("memory_bytes") else None
    try:
        need, resolved = compute_need(
            _size(facts), stated, device, stated_bytes=memory_bytes, draft=None if draft is None else _size(draft)
        )
    except OptionInvalid as error:
        raise invalid(_where(deployment, error.field), error.description) from error
    spec = engine_spec(deployment)
    spec.computed.max_model_len = resolved.max_model_len
    spec.computed.block_size = resolved.block_size
    spec.computed.kv_cache_memory_bytes = resolved.kv_cache_memory_bytes
    spec.draft_kv_cache_memory_bytes = resolved.draft_kv_cache_memory_bytes
    if len(devices) == 1:
        spec.computed.dtype = resolved.dtype
    return Sized(spec, need)


def _size(facts: ModelFacts) -> ModelSize:
    return ModelSize(
        parameter_count=facts.parameter_count,
        weight_bytes=facts.weight_bytes,
        dtype=facts.dtype,
        context_tokens=facts.context_tokens,
        kv_elements_per_token=facts.kv_elements_per_token,
    )


def _where(deployment: Deployment, option: str) -> str:
    """Returns where in a deployment an option was set: its environment is the other place."""
    is_stated = option in {field.name for field, _ in deployment.engine_options.ListFields()}
    is_in_env = option in {field.name for field, _ in settings_of(deployment).ListFields()}
    return "deployment.env" if is_in_env and not is_stated else f"deployment.engine_options.{option}"


def _given(options: EngineOptions, field: str, value: V) -> V | None:
    return value if options.HasField(field) else None


def _refusal(source: ModelSource, facts: ModelFacts, field: str) -> NotFound | InvalidArgument:
    kind = source.WhichOneof("source") or "path"
    name = source.builtin if kind == "builtin" else source.path
    said = f": {facts.message}" if facts.message else ""
    if facts.state == MODEL_STATE_NOT_FOUND:
        cure = "name one that exists" if kind == "builtin" else "put it on the nodes, or correct the path"
        return NotFound(
            f'no node has the model "{name}"{said}: {cure}',
            reason=errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
            resource=Resource("roundhouse.v1.ModelSource", name),
        )
    message = f'the model "{name}" is broken{said}: mend or fetch it again'
    return InvalidArgument(
        message,
        reason=errors_pb2.ERROR_REASON_MODEL_BROKEN,
        fields=[FieldViolation(f"{field}.{kind}", message)],
        resource=Resource("roundhouse.v1.ModelSource", name),
    )
