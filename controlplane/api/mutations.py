"""Makes mutations one at a time, durably, and repeatable by their `request_id`."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.message import Message

from controlplane import wire
from controlplane.fleet.intent import Intent
from controlplane.fleet.table import VISIBLE_S, Table
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import MutationRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import AlreadyExists, Conflict, RoundhouseError, Unreachable
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1 import errors_pb2
from roundhouse.v1.deployment_service_pb2 import (
    CreateDeploymentRequest,
    DeleteDeploymentRequest,
    ScaleDeploymentRequest,
    UpdateDeploymentRequest,
)
from roundhouse.v1.node_service_pb2 import CordonNodeRequest, DrainNodeRequest, UncordonNodeRequest

log = structlog.get_logger()

REMEMBER_S = 600.0
PRUNE_S = 60.0
_ATTEMPTS = 3  # the reconciler may delete a deployment in between; then the second look says NOT_FOUND


Mutation = (
    CreateDeploymentRequest
    | ScaleDeploymentRequest
    | UpdateDeploymentRequest
    | DeleteDeploymentRequest
    | CordonNodeRequest
    | UncordonNodeRequest
    | DrainNodeRequest
)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Write(Generic[R]):
    """What a mutation comes to: its answer, and what is to be stored for it, if anything."""

    response: R
    compares: Sequence[Compare] = ()
    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: Sequence[str] = ()

    @property
    def prefixes(self) -> set[str]:
        """Returns the kinds of what it writes."""
        return {key.partition("/")[0] + "/" for key in (*self.puts, *self.deletes)}


class Mutations:
    """The only writer of what is wanted."""

    def __init__(
        self, store: Store, intent: Intent, clock: Clock, hint: Callable[[], None], *, key: bytes = b""
    ) -> None:
        self._store, self._intent, self._clock, self._hint = store, intent, clock, hint
        self._key = key  # requests may hold secrets, which nobody is to guess by their hashes
        self._turn = asyncio.Lock()

    async def replay(self, request: Mutation, method: str, parse: Callable[[bytes], R]) -> R | None:
        """Returns the answer that was given to the same request before; None if there was none.

        Raises AlreadyExists (MUTATION_EXISTS) if the id was used with another body.
        """
        if not request.request_id or request.validate_only:
            return None
        entry = await self._store.get(wire.mutation_key(request.request_id))
        record = None if entry is None else MutationRecord.FromString(entry.value)
        if record is None or self._is_old(record):
            return None
        if (record.method, record.body_hash) != (method, self._hash(request)):
            raise AlreadyExists(
                f'request_id "{request.request_id}" was used for another {record.method}: use a new one',
                reason=errors_pb2.ERROR_REASON_MUTATION_EXISTS,
            )
        return parse(record.response)

    async def run(
        self, request: Mutation, method: str, parse: Callable[[bytes], R], decide: Callable[[], Awaitable[Write[R]]]
    ) -> R:
        """Replays the request, or decides what to write and writes it all at once; returns the answer."""
        for attempt in range(_ATTEMPTS):
            async with self._turn:
                if (answered := await self.replay(request, method, parse)) is not None:
                    return answered
                try:
                    write = await decide()
                except RoundhouseError:
                    # The same call, given up by its client, may have been written meanwhile, and be what is in the way.
                    if (answered := await self.replay(request, method, parse)) is not None:
                        return answered
                    raise
                if request.validate_only:
                    return write.response
                try:
                    revision = await self._commit(request, method, write)
                except Conflict:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
            if write.prefixes:
                await self._show(write.prefixes, revision)
            return write.response
        raise AssertionError("the last attempt returns or raises")

    async def prune(self) -> None:
        """Forgets the answers that are too old to be repeated."""
        listing = await self._store.list(wire.MUTATIONS)
        old = [each for each in listing.entries if self._is_old(MutationRecord.FromString(each.value))]
        if old:
            compares = [Compare(each.key, each.revision) for each in old]
            await self._store.commit(compares, {}, [each.key for each in old])

    async def keep_pruned(self) -> None:
        """Prunes until cancelled."""
        while True:
            try:
                await self.prune()
            except (Conflict, Unreachable) as error:
                log.warning("mutations not pruned", error=error.message)
            await asyncio.sleep(PRUNE_S)

    async def _commit(self, request: Mutation, method: str, write: Write[R]) -> int:
        compares, puts = list(write.compares), dict(write.puts)
        if request.request_id:
            key = wire.mutation_key(request.request_id)
            entry = await self._store.get(key)
            compares.append(Compare(key, 0 if entry is None else entry.revision))
            puts[key] = MutationRecord(
                body_hash=self._hash(request),
                method=method,
                response=write.response.SerializeToString(),
                write_time=to_timestamp(self._clock.now()),
            ).SerializeToString()
        if not puts and not write.deletes:
            return 0
        return await self._store.commit(compares, puts, write.deletes)

    async def _show(self, prefixes: Collection[str], revision: int) -> None:
        """Has a write acted upon, and waits until reads show it."""
        self._hint()
        tables: Sequence[Table[Any]] = (self._intent.deployments, self._intent.nodes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(VISIBLE_S):
                for each in tables:
                    if each.prefix in prefixes:
                        await each.reached(revision)

    def _hash(self, request: Mutation) -> bytes:
        body = type(request).FromString(request.SerializeToString())
        body.ClearField("request_id")
        return hmac.digest(self._key, body.SerializeToString(deterministic=True), "sha256")

    def _is_old(self, record: MutationRecord) -> bool:
        # A clock that was set back must not keep a record for ever.
        return abs(self._clock.now() - from_timestamp(record.write_time)) > REMEMBER_S
