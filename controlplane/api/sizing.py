"""Works out what the engines of a deployment are started with and need, from what nodes know of its model."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from controlplane import wire
from controlplane.api.checks import settings_of
from controlplane.api.resolving import Resolving, point_at
from controlplane.fleet.registry import Registry
from controlplane.model import Need, Wanted
from controlplane.placement.fit import usable_gpus
from controlplane.placement.fitting import Fits, Question, fit
from controlplane.placement.model_size import EngineDevice, ModelSize
from controlplane.placement.need import CacheOptions, OptionInvalid, Resolved
from roundhouse.internal.v1.agent_service_pb2 import ModelFacts
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import FieldViolation, NotServed
from roundhouse.kit.fields import invalid
from roundhouse.v1.deployment_pb2 import (
    SPECULATION_METHOD_DRAFT_MODEL,
    Deployment,
    EngineOptions,
    HubRepository,
)

# The most that computed options take in a spec: three numbers and the name of a number format.
COMPUTED_BYTES = 64

_DRAFT_MODEL = "deployment.engine_options.speculation.draft_model"

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Sized:
    """What one engine is started with, and the memory it needs."""

    spec: EngineSpec
    need: Need
    repository: HubRepository | None = None  # with a family: the files that it came to
    gpus_per_replica: int = 1  # 0: in the memory of a host


class Places(Protocol):
    """Tells what there is a place for."""

    def has_places(self, wanted: Wanted) -> bool:
        """Tells whether there is one for every replica."""

    def require_places(self, wanted: Wanted) -> None:
        """Raises NoCapacity, with the numbers, unless there is one for every replica."""


class Sizing:
    """Has models looked up, and computes."""

    def __init__(self, registry: Registry, resolving: Resolving, places: Places) -> None:
        self._registry, self._resolving, self._places = registry, resolving, places

    async def size(self, deployment: Deployment) -> Sized:
        """Returns the spec and the need of one replica.

        Raises what `Resolving.resolve` does, InvalidArgument (FIELD_INVALID) for an option that the model cannot have,
        and NoCapacity if context or cache is to be fitted and not even the least fits.
        """
        find, engine = self._resolving.resolve, deployment.engine
        model = await find(deployment.model, engine, "deployment.model")
        speculation = settings_of(deployment).speculation
        drafts = speculation.method == SPECULATION_METHOD_DRAFT_MODEL
        draft = await find(speculation.draft_model, engine, _DRAFT_MODEL) if drafts else None
        of_gpus = self._gpu_devices()
        # Once and for all: what joins later changes nothing about where the replicas may go.
        policy = deployment.placement
        gpus_per_replica = policy.gpus_per_replica if policy.HasField("gpus_per_replica") else int(bool(of_gpus))
        if gpus_per_replica > 1 and "cuda" in of_gpus:
            raise _gangs_not_served(deployment.engine, gpus_per_replica)
        elsewhere: EngineDevice = "cuda" if gpus_per_replica else "cpu"
        devices = of_gpus if gpus_per_replica and of_gpus else {elsewhere}
        settled = Deployment()
        settled.CopyFrom(deployment)
        settled.placement.gpus_per_replica = gpus_per_replica
        asked = question(settled, model.facts, devices, None if draft is None else draft.facts)
        result = told(settled, devices, *await self._answer(settled, asked))
        point_at(result.spec, model, draft)
        return replace(result, repository=model.repository, gpus_per_replica=gpus_per_replica)

    async def _answer(self, deployment: Deployment, asked: Question) -> tuple[Need, Resolved]:
        async def fits(need: Need) -> bool:
            await asyncio.sleep(0)  # each is a whole placement, beside which others have their turn
            return self._places.has_places(_wanted(deployment, need))

        with _named(deployment):
            if deployment.placement.HasField("memory_fraction"):
                return await self._of_share(deployment, asked, fits)
            if not (asked.fits_context or asked.fits_cache):
                return asked.answer()
            need, resolved = await fit(asked, fits)
        if not await fits(need):
            self._places.require_places(_wanted(deployment, need))
        return need, resolved

    async def _of_share(self, deployment: Deployment, asked: Question, fits: Fits) -> tuple[Need, Resolved]:
        """Returns the answer for a share of the largest size on which all replicas fit, else of the largest."""
        nodes = [each for each in self._registry.nodes().values() if each.is_ready]
        sizes = {each.total_bytes for each in usable_gpus(nodes)} if asked.gpu_count else set()
        sizes = sizes or {each.host_total_bytes for each in nodes}
        answers: list[tuple[Need, Resolved]] = []
        for size in sorted(sizes, reverse=True):
            stated = replace(asked, stated_bytes=int(size * deployment.placement.memory_fraction))
            try:
                answer = await fit(stated, fits) if asked.fits_context or asked.fits_cache else stated.answer()
            except OptionInvalid:
                if not answers:
                    raise
                break  # that of a smaller one does not hold the model
            if await fits(answer[0]):
                return answer
            answers.append(answer)
        if not answers:
            raise self._registry.no_node()
        return answers[0]

    def _gpu_devices(self) -> set[EngineDevice]:
        """Returns on what engines compute that have a GPU of this fleet."""
        reported = (gpu for known in self._registry.known.values() for gpu in known.report.node.gpus)
        simulated = {gpu.uuid for gpu in reported if gpu.is_simulated}
        return {"cpu" if gpu.uuid in simulated else "cuda" for gpu in usable_gpus(self._registry.nodes().values())}


def put_sized(record: DeploymentRecord, sized: Sized) -> None:
    """Puts what was worked out into the record of a deployment, in place of what it has."""
    record.engine_spec.CopyFrom(sized.spec)
    record.engine_spec.sealed_env.extend(record.sealed_env)
    record.deployment.placement.gpus_per_replica = sized.gpus_per_replica
    record.deployment.ClearField("resolved_repository")
    if sized.repository is not None:
        record.deployment.resolved_repository.CopyFrom(sized.repository)
    record.memory_need.CopyFrom(wire.memory_need(sized.need))


def engine_spec(deployment: Deployment) -> EngineSpec:
    """Returns what an engine of a deployment is started with, without what is computed."""
    return EngineSpec(
        deployment=wire.DEPLOYMENT.parse(deployment.name)[0],
        engine=deployment.engine,
        model=deployment.model,
        options=deployment.engine_options,
        env=[each for each in deployment.env if each.HasField("value")],
        virtual_env=deployment.virtual_env if deployment.HasField("virtual_env") else None,
    )


def question(
    deployment: Deployment, facts: ModelFacts, devices: Collection[EngineDevice], draft: ModelFacts | None = None
) -> Question:
    """Returns what is to be found out of one replica, in a fleet whose engines compute on `devices`.

    draft: the model that guesses tokens ahead, if one does.
    """
    options, policy = settings_of(deployment), deployment.placement
    # Where both kinds are, the larger need is reserved, that of an engine on the CPU: it holds wherever a replica goes.
    device: EngineDevice = "cpu" if "cpu" in devices else "cuda"
    # Plain torch makes of eight bits on a CPU what they were made from.
    keeps_int8 = options.quantization == "int8" and not (device == "cpu" and options.attention == "torch")
    stated = CacheOptions(
        max_model_len=_given(options, "max_model_len", options.max_model_len),
        batch_size=_given(options, "batch_size", options.batch_size),
        block_size=_given(options, "block_size", options.block_size),
        kv_cache_memory_bytes=_given(options, "kv_cache_memory_bytes", options.kv_cache_memory_bytes),
        dtype=options.dtype,
        max_num_batched_tokens=_given(options, "max_num_batched_tokens", options.max_num_batched_tokens),
        is_int8=keeps_int8,
    )
    return Question(
        model=_size(facts),
        options=stated,
        device=device,
        gpu_count=policy.gpus_per_replica if policy.HasField("gpus_per_replica") else 1,
        stated_bytes=policy.memory_bytes if policy.HasField("memory_bytes") else None,
        draft=None if draft is None else _size(draft),
        fits_context=options.fit_max_model_len,
        fits_cache=options.fit_kv_cache_memory,
    )


def told(deployment: Deployment, devices: Collection[EngineDevice], need: Need, resolved: Resolved) -> Sized:
    """Returns what engines are told of what was computed, and what each of them needs."""
    spec = engine_spec(deployment)
    spec.computed.max_model_len = resolved.max_model_len
    spec.computed.block_size = resolved.block_size
    spec.computed.kv_cache_memory_bytes = resolved.kv_cache_memory_bytes
    spec.draft_kv_cache_memory_bytes = resolved.draft_kv_cache_memory_bytes
    if len(devices) == 1:
        spec.computed.dtype = resolved.dtype
    return Sized(spec, need)


def sized(
    deployment: Deployment, facts: ModelFacts, devices: Collection[EngineDevice], draft: ModelFacts | None = None
) -> Sized:
    """Returns the spec and the need of one replica of which nothing is to be fitted. See `question`."""
    with _named(deployment):
        return told(deployment, devices, *question(deployment, facts, devices, draft).answer())


@contextmanager
def _named(deployment: Deployment) -> Iterator[None]:
    """Names the field of an option that the model cannot have."""
    try:
        yield
    except OptionInvalid as error:
        raise invalid(_where(deployment, error.field), error.description) from error


def _wanted(deployment: Deployment, need: Need) -> Wanted:
    # Of one that exists, replicas run what was wanted in an earlier generation: they are to make room.
    record = DeploymentRecord(
        deployment=deployment, memory_need=wire.memory_need(need), spec_generation=deployment.generation
    )
    wanted = wire.wanted(record)
    assert wanted is not None, "its need is known"
    return wanted


def _size(facts: ModelFacts) -> ModelSize:
    return ModelSize(
        parameter_count=facts.parameter_count,
        weight_bytes=facts.weight_bytes,
        dtype=facts.dtype,
        context_tokens=facts.context_tokens,
        kv_elements_per_token=facts.kv_elements_per_token,
        linear_parameter_count=facts.linear_parameter_count,
        tied_parameter_count=facts.tied_parameter_count,
        largest_tensor_parameter_count=facts.largest_tensor_parameter_count,
        hidden_size=facts.hidden_size,
        intermediate_size=facts.intermediate_size,
        query_size=facts.query_size,
        vocabulary_size=facts.vocabulary_size,
        layer_count=facts.layer_count,
    )


def _gangs_not_served(engine: str, gpus_per_replica: int) -> NotServed:
    message = f"is {gpus_per_replica}, and the engine {engine} computes on one GPU: set it to 1"
    field = "deployment.placement.gpus_per_replica"
    return NotServed(f"{field}: {message}", fields=[FieldViolation(field, message)])


def _where(deployment: Deployment, option: str) -> str:
    """Returns where in a deployment an option was set: its environment is the other place."""
    if option == "memory_bytes":
        kind = "memory_fraction" if deployment.placement.HasField("memory_fraction") else option
        return f"deployment.placement.{kind}"
    is_stated = option in {field.name for field, _ in deployment.engine_options.ListFields()}
    is_in_env = option in {field.name for field, _ in settings_of(deployment).ListFields()}
    return "deployment.env" if is_in_env and not is_stated else f"deployment.engine_options.{option}"


def _given(options: EngineOptions, field: str, value: V) -> V | None:
    return value if options.HasField(field) else None
