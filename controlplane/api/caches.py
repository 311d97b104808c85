"""Shows the files of models that nodes keep, and has nodes delete them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane import wire
from controlplane.api.paging import page
from controlplane.fleet.changes import Marks
from controlplane.fleet.deletions import Deletions
from controlplane.fleet.intent import Intent
from controlplane.fleet.registry import Registry
from roundhouse.internal.v1.agent_service_pb2 import CachedModelFacts, CachedModelKey
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.kit.errors import DeadlineExceeded, NotFound, NotReady, Resource, Unreachable
from roundhouse.kit.fields import invalid
from roundhouse.v1 import catalog_service_pb2 as pb
from roundhouse.v1 import errors_pb2
from roundhouse.v1.catalog_pb2 import CachedModel
from roundhouse.v1.deployment_pb2 import HubRepository, ModelSource

DELETE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Cached:
    node: str
    facts: CachedModelFacts

    @property
    def name(self) -> str:
        return wire.CACHED_MODEL.format(self.node, cached_model_id(self.facts.key))


class Caches:
    """What the newest reports say of caches, and wishes that something be deleted."""

    def __init__(self, registry: Registry, intent: Intent, deletions: Deletions, *, epoch: str) -> None:
        self._registry, self._intent, self._deletions, self._epoch = registry, intent, deletions, epoch

    def list(self, request: pb.ListCachedModelsRequest) -> pb.ListCachedModelsResponse:
        """Returns a page of cached models, by node, repository and commit."""
        node = _node_of(request.parent)
        nodes = sorted(self._registry.known) if node == wire.ANY else [node]
        if node != wire.ANY and node not in self._registry.known:
            raise _node_not_found(node)
        part = page(
            sorted((each for node in nodes for each in self._on(node)), key=lambda each: each.name),
            lambda each: each.name,
            self._shown,
            epoch=self._epoch,
            kind=f"list-cached-models-of {node}",
            size=request.page_size,
            token=request.page_token,
        )
        silent = [wire.NODE.format(each) for each in nodes if not self._registry.known[each].is_ready]
        return pb.ListCachedModelsResponse(
            cached_models=part.shown, next_page_token=part.next_token, unreachable=silent
        )

    async def delete(self, name: str) -> None:
        """Has a node delete files, and returns when it has reported them gone."""
        ids = wire.CACHED_MODEL.match(name)
        if ids is None:
            raise invalid("name", f'"{name[:300]}" is malformed: use {wire.CACHED_MODEL.pattern}')
        node, model = ids
        cached = next((each for each in self._on(node) if cached_model_id(each.facts.key) == model), None)
        if cached is None:
            raise _not_found(name)
        used = self._replicas_of(cached)
        if used:
            raise _in_use(cached, f"{', '.join(used)} run from it: terminate the deployment first")
        if not self._registry.known[node].is_ready:
            raise _silent(node)
        marks: Marks[str] = Marks()
        asked_at = self._registry.report_count
        with (
            self._registry.changes.to(lambda change: marks.mark(change.node)),
            self._deletions.wished(node, cached.facts.key),
        ):
            try:
                async with asyncio.timeout(DELETE_S):
                    while not self._is_gone(cached, asked_at):
                        await marks.take()
            except TimeoutError:
                message = f'node "{node}" has not deleted {cached.name} within {DELETE_S:g} s: look into its log'
                raise DeadlineExceeded(message) from None

    def _is_gone(self, cached: _Cached, asked_at: int) -> bool:
        """Tells whether a report has said so; raises NotReady if it says that the node will not delete them."""
        known = self._registry.known.get(cached.node)
        if known is None or not known.is_ready:
            raise _silent(cached.node)
        if known.number <= asked_at:
            return False
        there = [each for each in known.report.cached_models if each.key == cached.facts.key]
        refused = next((each.deletion_message for each in there if each.deletion_message), "")
        if refused:
            raise _in_use(cached, refused)
        return not there

    def _on(self, node: str) -> Sequence[_Cached]:
        known = self._registry.known.get(node)
        cached = () if known is None else known.report.cached_models
        return [_Cached(node, each) for each in cached]

    def _shown(self, cached: _Cached) -> CachedModel:
        facts = cached.facts
        return CachedModel(
            name=cached.name,
            repository=HubRepository(id=facts.key.repository, revision=facts.key.commit),
            references=facts.references,
            size_bytes=facts.size_bytes,
            file_count=facts.file_count,
            last_used_time=facts.last_used_time if facts.HasField("last_used_time") else None,
            replicas=self._replicas_of(cached),
        )

    def _replicas_of(self, cached: _Cached) -> Sequence[str]:
        """Returns the names of the replicas that run from these files, or are to."""
        found = []
        for placement in self._intent.placements_on(cached.node):
            row = self._intent.deployments.rows.get(placement.deployment)
            if row is not None and any(_is_of(each, cached.facts.key) for each in _sources(row.value.engine_spec)):
                found.append(wire.REPLICA.format(placement.deployment, placement.index))
        return sorted(found)


def cached_model_id(key: CachedModelKey) -> str:
    """Returns the id of cached files; no repository has two hyphens in a row, so it can be read back."""
    return f"{key.repository.replace('/', '--')}--{key.commit}"


def _sources(spec: EngineSpec) -> Iterator[ModelSource]:
    yield spec.model
    if spec.options.speculation.HasField("draft_model"):
        yield spec.options.speculation.draft_model


def _is_of(source: ModelSource, key: CachedModelKey) -> bool:
    """Tells whether a model runs from cached files: by its repository, or by a path into the cache."""
    if source.WhichOneof("source") == "repository":
        return (source.repository.id, source.repository.revision) == (key.repository, key.commit)
    folder = f"/models--{key.repository.replace('/', '--')}/snapshots/{key.commit}/"
    return source.WhichOneof("source") == "path" and folder in f"{source.path}/"


def _node_of(parent: str) -> str:
    if parent == wire.NODE.format(wire.ANY):
        return wire.ANY
    (node,) = wire.NODE.parse(parent, "parent")
    return node


def _node_not_found(node: str) -> NotFound:
    return NotFound(
        f'node "{node}" does not exist: check the name, or start its agent',
        reason=errors_pb2.ERROR_REASON_NODE_NOT_FOUND,
        resource=Resource("roundhouse.v1.Node", wire.NODE.format(node)),
    )


def _not_found(name: str) -> NotFound:
    return NotFound(
        f'"{name[:300]}" is not cached: see `roundhouse cache list`',
        reason=errors_pb2.ERROR_REASON_CACHED_MODEL_NOT_FOUND,
        resource=Resource("roundhouse.v1.CachedModel", name[:300]),
    )


def _in_use(cached: _Cached, why: str) -> NotReady:
    return NotReady(
        f"{cached.name} is not deleted: {why}",
        reason=errors_pb2.ERROR_REASON_CACHED_MODEL_IN_USE,
        resource=Resource("roundhouse.v1.CachedModel", cached.name),
    )


def _silent(node: str) -> Unreachable:
    return Unreachable(f'node "{node}" does not report, so nothing can be deleted there: check its agent')
