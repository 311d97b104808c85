"""Lets a call through to an engine only if it names this life of it and shows its key."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError

from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.errors import Unauthenticated, Unreachable
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.service import Context, Service
from roundhouse.v1 import errors_pb2

Method = Callable[[Any, Context, hop_pb2.Hop], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this life of an engine is."""

    engine_uuid: str
    engine_key: bytes = field(repr=False)
    deployment: str
    replica: str
    replica_uid: str
    deployment_generation: int

    def verify(self, context: Context) -> hop_pb2.Hop:
        """Returns the facts of the hop.

        Raises Unreachable if another engine is meant, Unauthenticated if the key is not the one of this life.
        """
        packed = metadata_value(context.invocation_metadata(), HOP_KEY)
        try:
            hop = hop_pb2.Hop.FromString(packed if isinstance(packed, bytes) else b"")
        except DecodeError:
            hop = hop_pb2.Hop()
        if hop.engine_uuid and hop.engine_uuid != self.engine_uuid:
            raise Unreachable(
                f"engine {hop.engine_uuid} is not here, this is {self.engine_uuid}: pick again",
                reason=errors_pb2.ERROR_REASON_WRONG_ENGINE,
            )
        # Without a uuid the key could be right only by chance, so both are one answer.
        if not (hop.engine_uuid and hmac.compare_digest(hop.engine_key, self.engine_key)):
            raise Unauthenticated(f"the call does not carry this engine's key in {HOP_KEY}: go through the gateway")
        return hop


def identified(descriptor: ServiceDescriptor, servicer: object, identity: Identity) -> Service:
    """Returns the service of a servicer whose methods take the verified hop as a third argument.

    So no method can be written, or reached, without one.
    """
    served = {
        each.name: _verified(getattr(servicer, each.name), identity)
        for each in descriptor.methods
        if hasattr(servicer, each.name)
    }
    return Service(descriptor, SimpleNamespace(**served))


def _verified(method: Method, identity: Identity) -> Callable[[Any, Context], Awaitable[Any]]:
    async def serve(request: Any, context: Context) -> Any:
        return await method(request, context, identity.verify(context))

    return serve
