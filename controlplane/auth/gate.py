"""Lets calls through: finds out who calls, looks up what the method needs, and ends the call when the right ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Protocol

from controlplane import wire
from controlplane.auth.caller import NOBODY, Caller, called_by
from controlplane.auth.methods import RIGHTS, Other, Right, Role
from roundhouse.kit.authorized import AUTHORIZATION
from roundhouse.kit.certificates import parse_node_uri
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Forbidden, Unauthenticated
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.service import Context, Service
from roundhouse.v1 import errors_pb2

_SCHEME = "bearer "
_CURE = 'set ROUNDHOUSE_TOKEN, which an operator makes with "roundhouse token create"'


class Directory(Protocol):
    """Knows who has which token."""

    def find(self, secret: str) -> Caller | None:
        """Returns who presents a secret; None if nobody has it, or its time is over."""


class NodeEpochs(Protocol):
    """Knows which certificates of nodes count."""

    def of(self, node: str) -> int:
        """Returns the lowest epoch of a certificate that counts for a node, by its bare id."""


class Guard:
    """The gate of a server that asks who calls: people by their tokens, nodes by their certificates."""

    def __init__(self, directory: Directory, epochs: NodeEpochs, clock: Clock) -> None:
        self._directory, self._epochs, self._clock = directory, epochs, clock
        self._running: dict[str, set[asyncio.Timeout]] = defaultdict(set)  # by what their right hangs on

    @contextlib.asynccontextmanager
    async def admitted(self, method: str, context: Context) -> AsyncIterator[None]:
        """Serves a call in the block, for as long as its caller has the right to it.

        Raises Unauthenticated and Forbidden.
        """
        right = RIGHTS.get(method)
        if right is Other.EVERYBODY:
            with called_by(NOBODY):
                yield
            return
        who = self._node(method, context) if right is Other.NODE else self._person(method, right, context)
        with called_by(who):
            if not who.hold:
                yield
                return
            limit = asyncio.timeout(self._left_s(who))
            try:
                async with limit:
                    with self._kept(who.hold, limit):
                        yield
            except TimeoutError:
                if not limit.expired():
                    raise
                if who.node is not None:
                    raise _revoked(who.node) from None
                raise _invalid("the token of this call has ended: use another one") from None

    def end(self, hold: str) -> None:
        """Ends the calls whose right hangs on this, by its name: it was taken away."""
        now = asyncio.get_running_loop().time()
        for each in self._running.get(hold, ()):
            if not each.expired():
                each.reschedule(now)

    def _person(self, method: str, right: Right | None, context: Context) -> Caller:
        secret = _bearer(context)
        who = None if secret is None else self._directory.find(secret)
        if who is None:
            what = "this call carries no token" if secret is None else "the token of this call is unknown or has ended"
            raise _invalid(f"{what}: {_CURE}")
        if not isinstance(right, Role):
            raise Forbidden(f"{method} is served to nobody: report it", metadata={"method": method})
        if who.role is None or who.role < right:
            has = "no role that is known here" if who.role is None else f"the role {who.role.name.lower()}"
            needed = right.name.lower()
            raise Forbidden(
                f'{method.rpartition(".")[2]} needs the role {needed}, and "{who.principal}" has {has}: '
                "use a token with that role, or ask an operator for one",
                metadata={"role": needed},
            )
        return who

    def _node(self, method: str, context: Context) -> Caller:
        shown = node_of(context)
        if shown is None:
            raise Unauthenticated(
                f"{method.rpartition('.')[2]} is for node agents, which show certificates on a port of their own: "
                "start the agent with a join token",
                reason=errors_pb2.ERROR_REASON_CERTIFICATE_REQUIRED,
            )
        node, epoch = shown
        if epoch < self._epochs.of(node):
            raise _revoked(node)
        return Caller(f"node {node}", hold=wire.NODE.format(node), node=node)

    def _left_s(self, who: Caller) -> float | None:
        return None if who.expire_s is None else max(0.0, who.expire_s - self._clock.now())

    @contextlib.contextmanager
    def _kept(self, hold: str, limit: asyncio.Timeout) -> Iterator[None]:
        self._running[hold].add(limit)
        try:
            yield
        finally:
            self._running[hold].discard(limit)
            if not self._running[hold]:
                del self._running[hold]


def node_of(context: Context) -> tuple[str, int] | None:
    """Returns the bare id of the node whose certificate a call shows, and its epoch; None without one.

    gRPC has verified it against the authority of the port, which signs nothing else for clients.
    """
    names: Iterable[Any] = context.auth_context().get("x509_subject_alternative_name", ())
    found = [parsed for each in names if (parsed := parse_node_uri(bytes(each).decode(errors="replace")))]
    return found[0] if len(found) == 1 else None


def require_all_rated(services: Iterable[Service]) -> None:
    """Asserts that the table has every method of these services: one that it lacks would be served to nobody."""
    lacking = [
        method.full_name for each in services for method in each.descriptor.methods if method.full_name not in RIGHTS
    ]
    assert not lacking, f"auth/methods.py does not say who may call {', '.join(lacking)}"


def _bearer(context: Context) -> str | None:
    value = metadata_value(context.invocation_metadata(), AUTHORIZATION)
    if not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return value[len(_SCHEME) :].strip()


def _revoked(node: str) -> Unauthenticated:
    return Unauthenticated(
        f'the certificates of node "{node}" were revoked: start its agent with a new join token, which an operator '
        f'makes with "roundhouse agent token --node {node}"',
        reason=errors_pb2.ERROR_REASON_CERTIFICATE_REQUIRED,
    )


def _invalid(message: str) -> Unauthenticated:
    return Unauthenticated(message, reason=errors_pb2.ERROR_REASON_TOKEN_INVALID)
