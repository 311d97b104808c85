"""Whom a control plane knows by their tokens, and the same as a message to gateways."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane import wire
from controlplane.auth.caller import Caller
from controlplane.auth.keys import hash_of
from controlplane.auth.methods import Role
from roundhouse.internal.v1 import fleet_service_pb2 as pb
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1.access_pb2 import AccessRole

Known = Mapping[bytes, Caller]  # by the hashes of their secrets; a lookup by hash gives no time to measure

_ROLES = frozenset(int(each) for each in Role)


def find(known: Known, secret: str, now_s: float) -> Caller | None:
    """Returns who presents a secret; None if nobody has it, or its time is over."""
    found = known.get(hash_of(secret))
    is_over = found is not None and found.expire_s is not None and found.expire_s <= now_s
    return None if is_over else found


def role_of(number: int) -> Role | None:
    """Returns a role of the contract; None for one that a newer version knows."""
    return Role(number) if number in _ROLES else None


def callers_message(known: Known | None) -> pb.Callers:
    """Returns what a gateway is told; None: nobody is asked."""
    tokens = [_message(hashed, each) for hashed, each in known.items()] if known is not None else ()
    return pb.Callers(are_asked=known is not None, tokens=tokens)


def told_callers(message: pb.Callers) -> Known | None:
    """Returns what a gateway was told; None: nobody is asked."""
    return {each.secret_hash: _caller(each) for each in message.tokens} if message.are_asked else None


def _message(hashed: bytes, of: Caller) -> pb.CallerToken:
    return pb.CallerToken(
        secret_hash=hashed,
        principal=of.principal,
        role=AccessRole.Name(of.role or 0),
        tenant=of.tenant,
        expire_time=None if of.expire_s is None else to_timestamp(of.expire_s),
    )


def _caller(told: pb.CallerToken) -> Caller:
    expire_s = from_timestamp(told.expire_time) if told.HasField("expire_time") else None
    return Caller(
        told.principal, role_of(int(told.role)), told.tenant, wire.ACCESS_TOKEN.format(told.principal), expire_s
    )
