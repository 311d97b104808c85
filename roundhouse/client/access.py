"""Tokens, as those see them who may give and take them."""

from __future__ import annotations

import time

from roundhouse.client.connection import Connection
from roundhouse.client.names import access_token_name, node_name
from roundhouse.client.pages import all_pages
from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration, to_timestamp
from roundhouse.v1 import access_pb2
from roundhouse.v1 import access_service_pb2 as pb
from roundhouse.v1.access_service_pb2_grpc import AccessServiceStub


class Access:
    """Tokens of people and programs, and those with which agents join."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self, name: str, *, role: str, tenant: str = "", lifetime_s: float | None = None
    ) -> pb.CreateAccessTokenResponse:
        """Makes a token; the answer holds its secret, which nobody can show again.

        role: `viewer`, `inference` or `operator`. lifetime_s: None for one that does not end by itself.
        """
        token = access_pb2.AccessToken(name=access_token_name(name), role=_role(role), tenant=tenant)
        if lifetime_s is not None:
            token.expire_time.CopyFrom(to_timestamp(time.time() + lifetime_s))
        stub = self._connection.stub(AccessServiceStub)
        request = pb.CreateAccessTokenRequest(access_token=token)
        response: pb.CreateAccessTokenResponse = await self._connection.unary(stub.CreateAccessToken, request)
        return response

    async def list(self) -> pb.ListAccessTokensResponse:
        """Returns the tokens, by name, all pages in one."""

        async def fetch(token: str) -> pb.ListAccessTokensResponse:
            stub = self._connection.stub(AccessServiceStub)
            request = pb.ListAccessTokensRequest(page_token=token)
            page: pb.ListAccessTokensResponse = await self._connection.unary(stub.ListAccessTokens, request)
            return page

        return await all_pages(fetch, "access_tokens")

    async def delete(self, name: str) -> None:
        """Deletes a token; calls that run with it are ended."""
        stub = self._connection.stub(AccessServiceStub)
        request = pb.DeleteAccessTokenRequest(name=access_token_name(name))
        await self._connection.unary(stub.DeleteAccessToken, request)

    async def create_join_token(self, *, node: str = "", lifetime_s: float | None = None) -> pb.CreateJoinTokenResponse:
        """Makes a token with which one agent may join, once; that of `node`, or of any node that is new."""
        request = pb.CreateJoinTokenRequest(node=node_name(node) if node else "")
        if lifetime_s is not None:
            request.lifetime.CopyFrom(to_duration(lifetime_s))
        stub = self._connection.stub(AccessServiceStub)
        response: pb.CreateJoinTokenResponse = await self._connection.unary(stub.CreateJoinToken, request)
        return response

    async def revoke_node(self, node: str) -> None:
        """Revokes the certificates that a node has: its agent needs a new join token."""
        stub = self._connection.stub(AccessServiceStub)
        await self._connection.unary(stub.RevokeNode, pb.RevokeNodeRequest(name=node_name(node)))

    async def caller(self) -> pb.GetCallerResponse:
        """Returns who the control plane takes this client for."""
        stub = self._connection.stub(AccessServiceStub)
        response: pb.GetCallerResponse = await self._connection.unary(stub.GetCaller, pb.GetCallerRequest())
        return response


def _role(role: str) -> str:
    name = f"ACCESS_ROLE_{role.upper()}"
    if name not in access_pb2.AccessRole.keys():  # noqa: SIM118 - not a dict; `in` on the wrapper is not defined
        raise invalid("role", f'"{role[:100]}" is no role: use viewer, inference or operator')
    return name
