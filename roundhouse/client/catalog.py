"""The catalog of models and the caches of nodes, as a client sees them."""

from __future__ import annotations

from roundhouse.client.connection import Connection
from roundhouse.client.names import family_name, node_name
from roundhouse.client.pages import all_pages
from roundhouse.v1 import catalog_pb2, deployment_pb2
from roundhouse.v1 import catalog_service_pb2 as pb
from roundhouse.v1.catalog_service_pb2_grpc import CatalogServiceStub

DELETION_TIMEOUT_S = 70.0  # the control plane gives a node 60 s


class Catalog:
    """Families of models, those that ship and those that were registered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def register(
        self, family: catalog_pb2.ModelFamily, *, allow_replace: bool = False, validate_only: bool = False
    ) -> catalog_pb2.ModelFamily:
        """Registers a family, and returns it as stored."""
        request = pb.RegisterFamilyRequest(family=family, allow_replace=allow_replace, validate_only=validate_only)
        stub = self._connection.stub(CatalogServiceStub)
        response: pb.RegisterFamilyResponse = await self._connection.unary(stub.RegisterFamily, request)
        return response.family

    async def get(self, family: str) -> catalog_pb2.ModelFamily:
        """Returns one family."""
        stub = self._connection.stub(CatalogServiceStub)
        request = pb.GetFamilyRequest(name=family_name(family))
        response: pb.GetFamilyResponse = await self._connection.unary(stub.GetFamily, request)
        return response.family

    async def list(self) -> pb.ListFamiliesResponse:
        """Returns the families, by name, all pages in one."""

        async def fetch(token: str) -> pb.ListFamiliesResponse:
            stub = self._connection.stub(CatalogServiceStub)
            request = pb.ListFamiliesRequest(page_token=token)
            page: pb.ListFamiliesResponse = await self._connection.unary(stub.ListFamilies, request)
            return page

        return await all_pages(fetch, "families")

    async def delete(self, family: str) -> None:
        """Deletes a family that was registered; its deployments go on."""
        stub = self._connection.stub(CatalogServiceStub)
        await self._connection.unary(stub.DeleteFamily, pb.DeleteFamilyRequest(name=family_name(family)))

    async def resolve(
        self, family: str, *, size_in_billions: str = "", model_format: str = "", model_quantization: str = ""
    ) -> pb.ResolveModelResponse:
        """Returns which variant is meant, and which nodes have its files."""
        model = deployment_pb2.FamilyModel(
            family=family, size_in_billions=size_in_billions, format=model_format, quantization=model_quantization
        )
        stub = self._connection.stub(CatalogServiceStub)
        response: pb.ResolveModelResponse = await self._connection.unary(
            stub.ResolveModel, pb.ResolveModelRequest(model=model)
        )
        return response


class CachedModels:
    """Files of models that nodes keep."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self, node: str = "-") -> pb.ListCachedModelsResponse:
        """Returns what one node keeps, or every node, all pages in one."""

        async def fetch(token: str) -> pb.ListCachedModelsResponse:
            stub = self._connection.stub(CatalogServiceStub)
            request = pb.ListCachedModelsRequest(parent=node_name(node), page_token=token)
            page: pb.ListCachedModelsResponse = await self._connection.unary(stub.ListCachedModels, request)
            return page

        return await all_pages(fetch, "cached_models")

    async def delete(self, name: str) -> None:
        """Deletes what a node keeps under `nodes/{node}/cachedModels/{cached_model}`; returns once it is gone."""
        stub = self._connection.stub(CatalogServiceStub)
        request = pb.DeleteCachedModelRequest(name=name)
        await self._connection.unary(stub.DeleteCachedModel, request, DELETION_TIMEOUT_S)
