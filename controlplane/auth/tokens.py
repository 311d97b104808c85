"""The access tokens: kept in the store by name, found by the hash of what a caller presents."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from controlplane import wire
from controlplane.auth import known
from controlplane.auth.caller import LOCAL, Caller
from controlplane.auth.keys import ACCESS_PREFIX, hash_of, new_secret
from controlplane.auth.known import Known
from controlplane.auth.methods import Role
from controlplane.fleet.changes import Changes
from controlplane.fleet.table import Row, RowChange, Table
from controlplane.store.protocol import Compare, Store
from roundhouse.internal.v1.store_pb2 import AccessTokenRecord
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import AlreadyExists, Conflict, NoCapacity, NotFound, QuotaViolation, Resource
from roundhouse.kit.latest import Latest
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1 import errors_pb2
from roundhouse.v1.access_pb2 import AccessToken

MAX_TOKENS = 1000
OPERATOR = "operator"  # the id of the token in the state directory
RESERVED_IDS = (OPERATOR, LOCAL.principal)


class Tokens:
    """Reads and writes access tokens. `ended` tells the names of those that were taken away; `known` has the others.

    operator_secret: of the one that is no record, so that nobody can be locked out of an empty store; None: none.
    """

    def __init__(self, store: Store, clock: Clock, operator_secret: str | None = None) -> None:
        self._store, self._clock = store, clock
        self._table = Table(store, wire.ACCESS_TOKENS, AccessTokenRecord.FromString)
        # The operator's right hangs on nothing: while this process lives its token is not taken away.
        self._operator = {} if operator_secret is None else {hash_of(operator_secret): Caller(OPERATOR, Role.OPERATOR)}
        self.known: Latest[Known] = Latest(self._operator)
        self.ended: Changes[str] = Changes()

    def find(self, secret: str) -> Caller | None:
        """Returns who presents a secret; None if nobody has it, or its time is over."""
        return known.find(self.known.get(), secret, self._clock.now())

    def all(self) -> Sequence[AccessToken]:
        """Returns every token, by name."""
        return sorted((row.value.access_token for row in self._table.rows.values()), key=lambda each: each.name)

    async def create(self, asked: AccessToken) -> tuple[AccessToken, str]:
        """Stores a token that was checked; returns it and its secret. Raises AlreadyExists and NoCapacity."""
        (token,) = wire.ACCESS_TOKEN.parse(asked.name)
        if token in RESERVED_IDS:
            raise _exists(token)
        if len(self._table.rows) >= MAX_TOKENS and token not in self._table.rows:
            message = f"there are {len(self._table.rows)} access tokens, and room for no more: delete one"
            raise NoCapacity(message, quota=[QuotaViolation("accessTokens", message)])
        fresh = AccessToken(name=asked.name, role=asked.role, tenant=asked.tenant)
        if asked.HasField("expire_time"):
            fresh.expire_time.CopyFrom(asked.expire_time)
        fresh.create_time.CopyFrom(to_timestamp(self._clock.now()))
        secret = new_secret(ACCESS_PREFIX)
        record = AccessTokenRecord(access_token=fresh, secret_hash=hash_of(secret))
        key = wire.access_token_key(token)
        try:
            revision = await self._store.commit([Compare(key, 0)], {key: record.SerializeToString()})
        except Conflict as error:
            raise _exists(token) from error
        await self._table.shown(revision)
        return fresh, secret

    async def delete(self, token: str) -> None:
        """Deletes a token by its bare id; raises NotFound."""
        entry = await self._store.get(wire.access_token_key(token))
        if entry is None:
            raise NotFound(
                f'access token "{token}" does not exist: check the name',
                reason=errors_pb2.ERROR_REASON_ACCESS_TOKEN_NOT_FOUND,
                resource=_resource(token),
            )
        # Without a compare: whoever deletes means this name, however often it was made.
        await self._table.shown(await self._store.commit([], {}, [entry.key]))

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Loads the tokens, then keeps them up to date for the block."""
        with self._table.changes.to(self._take):
            async with self._table.kept():
                yield

    def _take(self, change: RowChange[AccessTokenRecord]) -> None:
        now = dict(self.known.get())
        if change.before is not None:
            now.pop(change.before.value.secret_hash, None)
        if change.after is not None:
            now[change.after.value.secret_hash] = _caller(change.key, change.after)
        self.known.set({**now, **self._operator})
        if change.before is not None:
            self.ended.tell(change.before.value.access_token.name)


def _caller(token: str, row: Row[AccessTokenRecord]) -> Caller:
    found = row.value.access_token
    expire_s = from_timestamp(found.expire_time) if found.HasField("expire_time") else None
    return Caller(token, known.role_of(int(found.role)), found.tenant, found.name, expire_s)


def _exists(token: str) -> AlreadyExists:
    return AlreadyExists(
        f'access token "{token}" exists: choose another name, or delete it first',
        reason=errors_pb2.ERROR_REASON_ACCESS_TOKEN_EXISTS,
        resource=_resource(token),
    )


def _resource(token: str) -> Resource:
    return Resource("roundhouse.v1.AccessToken", wire.ACCESS_TOKEN.format(token))
