"""Serves `AccessService`: gives and takes tokens."""

from __future__ import annotations

from typing import Any

from controlplane import wire
from controlplane.api.paging import page
from controlplane.auth.caller import caller
from controlplane.auth.enrolling import Enrolling
from controlplane.auth.methods import Role
from controlplane.auth.tokens import Tokens
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import NotReady
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.kit.times import from_duration, from_timestamp, to_timestamp
from roundhouse.v1 import access_service_pb2 as pb
from roundhouse.v1 import errors_pb2
from roundhouse.v1.access_pb2 import AccessRole, AccessToken

JOIN_LIFETIME_S = 3600.0
_SHORTEST_S, _LONGEST_S = 1.0, 7 * 24 * 3600.0


class AccessApi:
    """The methods of `AccessService`.

    enrolling: None where agents join without certificates. is_private: nobody else can read what is answered.
    """

    def __init__(
        self, tokens: Tokens, enrolling: Enrolling | None, clock: Clock, *, epoch: str, is_private: bool
    ) -> None:
        self._tokens, self._enrolling, self._clock = tokens, enrolling, clock
        self._epoch, self._is_private = epoch, is_private

    async def CreateAccessToken(self, request: pb.CreateAccessTokenRequest, _: Any) -> pb.CreateAccessTokenResponse:
        """Makes a token."""
        self._check(request.access_token)
        if not self._is_private:
            raise NotReady(
                "the token would be sent without TLS, so others could read it: start the control plane with --tls-cert "
                "and --tls-key",
                reason=errors_pb2.ERROR_REASON_SECRETS_NEED_TLS,
            )
        token, secret = await self._tokens.create(request.access_token)
        return pb.CreateAccessTokenResponse(access_token=token, secret=secret)

    async def ListAccessTokens(self, request: pb.ListAccessTokensRequest, _: Any) -> pb.ListAccessTokensResponse:
        """Returns a page of tokens."""
        part = page(
            self._tokens.all(),
            lambda each: each.name,
            lambda each: each,
            epoch=self._epoch,
            kind="list-access-tokens",
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListAccessTokensResponse(access_tokens=part.shown, next_page_token=part.next_token)

    async def DeleteAccessToken(self, request: pb.DeleteAccessTokenRequest, _: Any) -> pb.DeleteAccessTokenResponse:
        """Takes a token away."""
        (token,) = wire.ACCESS_TOKEN.parse(request.name)
        await self._tokens.delete(token)
        return pb.DeleteAccessTokenResponse()

    async def CreateJoinToken(self, request: pb.CreateJoinTokenRequest, _: Any) -> pb.CreateJoinTokenResponse:
        """Makes a token for one agent."""
        lifetime_s = from_duration(request.lifetime) if request.HasField("lifetime") else JOIN_LIFETIME_S
        check = FieldCheck()
        limits = f"{_SHORTEST_S:g} to {_LONGEST_S:g}"
        check.require(_SHORTEST_S <= lifetime_s <= _LONGEST_S, "lifetime", f"it is {lifetime_s:g} s: use {limits}")
        ids = wire.NODE.match(request.node) or ("",)
        form = f'"{request.node[:100]}" is malformed: use {wire.NODE.pattern}, an id of {ID_RULE}, or leave it empty'
        check.require(not request.node or is_id(ids[0]), "node", form)
        check.raise_if_any()
        if self._enrolling is None:
            raise authentication_off()
        secret, expire_s = await self._enrolling.create(lifetime_s, ids[0])
        return pb.CreateJoinTokenResponse(secret=secret, expire_time=to_timestamp(expire_s))

    async def RevokeNode(self, request: pb.RevokeNodeRequest, _: Any) -> pb.RevokeNodeResponse:
        """Revokes the certificates of a node."""
        (node,) = wire.NODE.parse(request.name)
        if self._enrolling is None:
            raise authentication_off()
        await self._enrolling.epochs.revoke(node)
        return pb.RevokeNodeResponse()

    async def GetCaller(self, _: pb.GetCallerRequest, __: Any) -> pb.GetCallerResponse:
        """Says who calls."""
        who = caller()
        expire_time = None if who.expire_s is None else to_timestamp(who.expire_s)
        role = AccessRole.Name(who.role or 0)
        return pb.GetCallerResponse(principal=who.principal, role=role, tenant=who.tenant, expire_time=expire_time)

    def _check(self, token: AccessToken) -> None:
        check = FieldCheck()
        ids = wire.ACCESS_TOKEN.match(token.name) or ("",)
        form = f'"{token.name[:100]}" is malformed: use {wire.ACCESS_TOKEN.pattern}, an id of {ID_RULE}'
        check.require(is_id(ids[0]), "access_token.name", form)
        roles = ", ".join(AccessRole.Name(each) for each in Role)
        check.require(
            int(token.role) in {int(each) for each in Role},
            "access_token.role",
            f"{token.role} is no role: use one of {roles}",
        )
        tenant = f'"{token.tenant[:100]}" is no id: use {ID_RULE}, or leave it empty'
        check.require(not token.tenant or is_id(token.tenant), "access_token.tenant", tenant)
        is_over = token.HasField("expire_time") and from_timestamp(token.expire_time) <= self._clock.now()
        check.require(not is_over, "access_token.expire_time", "it is over: use a later one, or leave it unset")
        check.raise_if_any()


def authentication_off() -> NotReady:
    """Returns what is said where nobody needs a certificate."""
    return NotReady(
        "agents join this control plane without certificates: start it with --auth and TLS to ask for them",
        reason=errors_pb2.ERROR_REASON_AUTHENTICATION_OFF,
    )
