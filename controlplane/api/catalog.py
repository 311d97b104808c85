"""Serves `CatalogService`: families of models, what they come to on the nodes, and the files that nodes keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane import wire
from controlplane.api.caches import Caches
from controlplane.api.families import Families
from controlplane.api.paging import page
from controlplane.api.resolving import Resolving
from controlplane.catalog.checks import check_family, check_family_model, check_family_served
from controlplane.catalog.variants import FAMILY_ID_RULE, is_family_id
from controlplane.fleet.models import Survey
from roundhouse.internal.v1.agent_service_pb2 import MODEL_STATE_AT_HUB, MODEL_STATE_OK, ModelFacts
from roundhouse.kit.fields import FieldCheck, invalid
from roundhouse.v1 import catalog_service_pb2 as pb
from roundhouse.v1.catalog_pb2 import ModelFamily, ModelLocation


class CatalogApi:
    """The methods of `CatalogService`."""

    def __init__(self, families: Families, resolving: Resolving, caches: Caches, *, epoch: str) -> None:
        self._families, self._resolving, self._caches, self._epoch = families, resolving, caches, epoch

    async def RegisterFamily(self, request: pb.RegisterFamilyRequest, _: Any) -> pb.RegisterFamilyResponse:
        """Stores a family."""
        check = FieldCheck()
        check_family(check, request.family)
        check.raise_if_any()
        check_family_served(request.family)
        family = await self._families.register(
            request.family, allow_replace=request.allow_replace, validate_only=request.validate_only
        )
        return pb.RegisterFamilyResponse(family=family)

    async def GetFamily(self, request: pb.GetFamilyRequest, _: Any) -> pb.GetFamilyResponse:
        """Returns one family."""
        return pb.GetFamilyResponse(family=await self._families.get(_family_id(request.name)))

    async def ListFamilies(self, request: pb.ListFamiliesRequest, _: Any) -> pb.ListFamiliesResponse:
        """Returns a page of families."""
        part = page(
            await self._families.list(),
            lambda each: each.name,
            _itself,
            epoch=self._epoch,
            kind="list-families",
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListFamiliesResponse(families=part.shown, next_page_token=part.next_token)

    async def DeleteFamily(self, request: pb.DeleteFamilyRequest, _: Any) -> pb.DeleteFamilyResponse:
        """Deletes a family that was registered."""
        await self._families.delete(_family_id(request.name), validate_only=request.validate_only)
        return pb.DeleteFamilyResponse()

    async def ResolveModel(self, request: pb.ResolveModelRequest, _: Any) -> pb.ResolveModelResponse:
        """Returns which variant is meant, and what each node has of it."""
        check = FieldCheck()
        check_family_model(check, request.model, "model")
        check.raise_if_any()
        family, variant = await self._resolving.variant(request.model, "model")
        surveys, silent = await self._resolving.survey(variant)
        answered = sorted({node for _, each in surveys for node in each.answers} - set(silent))
        return pb.ResolveModelResponse(
            family=family,
            variant=variant,
            nodes=[_node_model(node, surveys) for node in answered],
            unreachable=[wire.NODE.format(node) for node in silent],
        )

    async def ListCachedModels(self, request: pb.ListCachedModelsRequest, _: Any) -> pb.ListCachedModelsResponse:
        """Returns a page of what nodes keep."""
        return self._caches.list(request)

    async def DeleteCachedModel(self, request: pb.DeleteCachedModelRequest, _: Any) -> pb.DeleteCachedModelResponse:
        """Deletes what a node keeps of one commit, and waits until it has."""
        await self._caches.delete(request.name)
        return pb.DeleteCachedModelResponse()


def _family_id(name: str) -> str:
    ids = wire.FAMILY.match(name)
    if ids is None or not is_family_id(ids[0]):
        form = f'"{name[:100]}" is malformed: use {wire.FAMILY.pattern}, an id of {FAMILY_ID_RULE}'
        raise invalid("name", form)
    return ids[0]


def _itself(family: ModelFamily) -> ModelFamily:
    return family


def _node_model(node: str, surveys: Sequence[tuple[ModelLocation, Survey]]) -> pb.NodeModel:
    """Returns what a node has at the first location where it has all, else what is missing at each."""
    name = wire.NODE.format(node)
    answers = [survey.answers[node] for _, survey in surveys]
    whole = next((each for each in answers if each.state == MODEL_STATE_OK), None)
    if whole is not None:
        # A path is what was asked for; an agent says where a repository lies.
        return pb.NodeModel(node=name, path=whole.path or whole.source.path, weight_bytes=whole.weight_bytes)
    at_hub = next((each for each in answers if each.state == MODEL_STATE_AT_HUB), ModelFacts())
    return pb.NodeModel(
        node=name,
        message="; ".join(each.message for each in answers),
        weight_bytes=at_hub.weight_bytes,
        fetch_bytes=at_hub.fetch_bytes,
    )
