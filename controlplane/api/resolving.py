"""Finds the files that a deployment means: a path, a builtin, a repository in the caches of nodes, or a family's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from controlplane import wire
from controlplane.api.families import Families
from controlplane.catalog.variants import choose, family_id, format_of, label
from controlplane.fleet.models import Models, Survey
from roundhouse.internal.v1.agent_service_pb2 import MODEL_STATE_BROKEN, MODEL_STATE_NOT_FOUND, ModelFacts
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.kit.errors import (
    FieldViolation,
    InvalidArgument,
    NotFound,
    NotServed,
    Resource,
    RoundhouseError,
)
from roundhouse.v1 import errors_pb2
from roundhouse.v1.catalog_pb2 import ModelFamily, ModelLocation, ModelVariant
from roundhouse.v1.deployment_pb2 import FamilyModel, HubRepository, ModelSource

LOOKUP_S = 5.0  # a node looks at the headers of a model in milliseconds, and reports every second
HUB_S = 15.0  # a node gives up on the hub sooner
ENGINE_FORMATS: Mapping[str, frozenset[str]] = {"torch": frozenset({"pytorch"})}
# Who takes the others; none of them is here yet.
_OTHER_ENGINES = {"ggufv2": "llama.cpp", "gguf": "llama.cpp", "mlx": "MLX"}
_MAX_SAID = 8  # nodes of which a refusal says what they lack; a fleet has a thousand


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model that at least one node has, or can fetch, and what that node found."""

    source: ModelSource  # what an engine is told: a path, a builtin, or a repository at a commit
    facts: ModelFacts
    chat_template: str = ""  # in place of that of the files
    repository: HubRepository | None = None  # of a family: where its files are from


class Resolving:
    """Turns what a user named into files, by the catalog and by asking nodes."""

    def __init__(self, families: Families, models: Models) -> None:
        self._families, self._models = families, models

    async def variant(self, model: FamilyModel, field: str) -> tuple[ModelFamily, ModelVariant]:
        """Returns what is meant; raises NotFound (FAMILY_NOT_FOUND) and InvalidArgument (VARIANT_NOT_FOUND)."""
        family = await self._families.get(family_id(model))
        return family, choose(family, model, field)

    async def resolve(self, source: ModelSource, engine: str, field: str) -> Resolved:
        """Returns the files for an engine.

        Raises what `variant` does, NotServed for a format that the engine does not take, NotReady (NO_NODE), NotFound
        (MODEL_NOT_FOUND, MODEL_NOT_CACHED), InvalidArgument (MODEL_BROKEN) and DeadlineExceeded if no node answers.
        """
        if source.WhichOneof("source") == "family":
            return await self._resolve_family(source.family, engine, field)
        survey = await self._at_hub(source, await self._models.find(source, LOOKUP_S))
        if survey.whole is None:
            raise _refusal(source, survey, field)
        return Resolved(pinned(source, survey.whole), survey.whole)

    async def survey(self, variant: ModelVariant) -> tuple[Sequence[tuple[ModelLocation, Survey]], Sequence[str]]:
        """Returns what nodes have at each location of a variant, and the ids of nodes that did not answer everywhere.

        The hub is asked if no node has it. Raises NotReady (NO_NODE).
        """
        sources = list(map(_source, variant.locations))
        surveys: Sequence[Survey]
        surveys = await asyncio.gather(*(self._models.survey(each, LOOKUP_S) for each in sources))
        silent = sorted({node for each in surveys for node in each.silent})
        if not any(each.whole for each in surveys):
            surveys = await asyncio.gather(*map(self._at_hub, sources, surveys))
        return list(zip(variant.locations, surveys, strict=True)), silent

    async def _resolve_family(self, model: FamilyModel, engine: str, field: str) -> Resolved:
        family, variant = await self.variant(model, f"{field}.family")
        name = label(family.name.removeprefix("families/"), variant)
        _require_served(name, format_of(variant), engine, field)
        sources = list(map(_source, variant.locations))
        surveys = await asyncio.gather(*(self._models.find(each, LOOKUP_S) for each in sources), return_exceptions=True)
        refusals: list[RoundhouseError] = []
        for look in (_as_it_is, self._at_hub):
            refusals = []
            for source, survey in zip(sources, surveys, strict=True):
                if isinstance(survey, Survey):
                    now = await look(source, survey)
                    if now.whole is not None:
                        return _resolved(family, variant, name, source, now.whole, field)
                    refusals.append(_refusal(source, now, field))
                elif isinstance(survey, RoundhouseError):
                    refusals.append(survey)
                else:
                    raise survey
        raise _worst(name, refusals)

    async def _at_hub(self, source: ModelSource, survey: Survey) -> Survey:
        """Returns the same, with what the hub has of a repository that no node has."""
        is_lacking = all(map(is_lack, survey.answers.values()))
        if source.WhichOneof("source") != "repository" or survey.whole is not None or not is_lacking:
            return survey
        found = await self._models.ask_hub(source, HUB_S)
        return Survey({**survey.answers, **found.answers}, survey.silent)


async def _as_it_is(_: ModelSource, survey: Survey) -> Survey:
    return survey


def _resolved(
    family: ModelFamily, variant: ModelVariant, name: str, source: ModelSource, facts: ModelFacts, field: str
) -> Resolved:
    _require_type(family, facts, name, field)
    exact = pinned(source, facts)
    repository = exact.repository if source.WhichOneof("source") == "repository" else None
    bounded = _bounded(facts, variant.context_tokens or family.context_tokens)
    return Resolved(exact, bounded, family.chat_template, repository)


def pinned(source: ModelSource, facts: ModelFacts) -> ModelSource:
    """Returns a source that means these very files on every node: a repository at the commit that was found."""
    if source.WhichOneof("source") != "repository":
        return source
    commit = facts.commit or PurePosixPath(facts.path).name  # `.../snapshots/{commit}`
    return ModelSource(repository=HubRepository(id=source.repository.id, revision=commit))


def point_at(spec: EngineSpec, model: Resolved, draft: Resolved | None) -> None:
    """Tells an engine which files it serves, and which guess tokens ahead."""
    spec.model.CopyFrom(model.source)
    # One that is named in the environment is a path, and stays it.
    if draft is not None and spec.options.speculation.HasField("draft_model"):
        spec.options.speculation.draft_model.CopyFrom(draft.source)
    spec.chat_template = model.chat_template


def _source(location: ModelLocation) -> ModelSource:
    if location.WhichOneof("location") == "path":
        return ModelSource(path=location.path)
    return ModelSource(repository=location.repository)


def _require_served(name: str, kind: str, engine: str, field: str) -> None:
    taken = ENGINE_FORMATS.get(engine, frozenset())
    if kind not in taken:
        other = _OTHER_ENGINES.get(kind, "vLLM")
        said = f'"{name}" is in the format {kind}, which takes an engine such as {other}, not served yet'
        cure = f"the engine {engine} takes {', '.join(sorted(taken)) or 'none'}: name another format"
        violation = FieldViolation(f"{field}.family.format", f"{said}; {cure}")
        raise NotServed(f"{violation.field}: {violation.description}", fields=[violation])


def _require_type(family: ModelFamily, facts: ModelFacts, name: str, field: str) -> None:
    if family.model_type and facts.model_type != family.model_type:
        said = f'the files in {facts.path or "its path"} are of the type "{facts.model_type}"'
        message = f'{said}, and "{name}" is of "{family.model_type}": correct the catalog, or fetch the files again'
        raise _broken(message, f"{field}.family", name)


def _bounded(facts: ModelFacts, context_tokens: int) -> ModelFacts:
    """Returns the facts with no more context than the catalog says."""
    if not 0 < context_tokens < facts.context_tokens:
        return facts
    bounded = ModelFacts()
    bounded.CopyFrom(facts)
    bounded.context_tokens = context_tokens
    return bounded


def _worst(name: str, refusals: Sequence[RoundhouseError]) -> RoundhouseError:
    """Returns what is said when no location has the model: all that was missing, or the one fault that is no lack."""
    lacking = [each for each in refusals if isinstance(each, NotFound)]
    if len(refusals) == 1 or not lacking:
        return refusals[0]
    other = next((each for each in refusals if not isinstance(each, NotFound)), None)
    if other is not None:
        return other
    said = "; ".join(each.message for each in lacking)
    return NotFound(
        said,
        reason=errors_pb2.ERROR_REASON_MODEL_NOT_CACHED,
        resource=Resource("roundhouse.v1.ModelFamily", name),
    )


def _refusal(source: ModelSource, survey: Survey, field: str) -> NotFound | InvalidArgument:
    """Returns why no node that answered can serve a model."""
    kind = source.WhichOneof("source") or "path"
    facts = survey.best
    assert facts is not None, "at least one node has answered"
    if kind == "repository":
        lacking = [each for each in survey.answers.values() if is_lack(each)]
        if len(lacking) == len(survey.answers):
            return _not_cached(source.repository, survey)
        facts = next(each for each in survey.answers.values() if not is_lack(each))
    name = source.repository.id if kind == "repository" else source.builtin if kind == "builtin" else source.path
    said = f": {facts.message}" if facts.message else ""
    if facts.state == MODEL_STATE_NOT_FOUND:
        cure = "name one that exists" if kind == "builtin" else "put it on the nodes, or correct the path"
        return NotFound(
            f'no node has the model "{name}"{said}: {cure}',
            reason=errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
            resource=Resource("roundhouse.v1.ModelSource", name),
        )
    return _broken(f'the model "{name}" is broken{said}: mend or fetch it again', f"{field}.{kind}", name)


def is_lack(facts: ModelFacts) -> bool:
    """Tells whether files are missing, and none is broken."""
    return facts.state == MODEL_STATE_NOT_FOUND or (facts.state == MODEL_STATE_BROKEN and bool(facts.missing_files))


def _broken(message: str, field: str, name: str) -> InvalidArgument:
    return InvalidArgument(
        message,
        reason=errors_pb2.ERROR_REASON_MODEL_BROKEN,
        fields=[FieldViolation(field, message)],
        resource=Resource("roundhouse.v1.ModelSource", name),
    )


def _not_cached(repository: HubRepository, survey: Survey) -> NotFound:
    said = [f'node "{node}": {facts.message}' for node, facts in sorted(survey.answers.items())[:_MAX_SAID]]
    said += [f'node "{node}" has not answered' for node in sorted(survey.silent)[: _MAX_SAID - len(said)]]
    left = len(survey.answers) + len(survey.silent) - len(said)
    said += [f"and so on for {left} nodes more"] if left else []
    at = f" at {repository.revision}" if repository.revision else ""
    revision = f" --revision {repository.revision}" if repository.revision else ""
    cure = f"let a node reach the hub, or fetch it there with `hf download {repository.id}{revision}`"
    return NotFound(
        f'no node has the files of "{repository.id}"{at} ({"; ".join(said)}): {cure}',
        reason=errors_pb2.ERROR_REASON_MODEL_NOT_CACHED,
        resource=Resource("roundhouse.v1.HubRepository", repository.id),
        metadata={"nodes": ", ".join(wire.NODE.format(node) for node in sorted(survey.answers)[:_MAX_SAID])},
    )
