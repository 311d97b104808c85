"""Join tokens, each for one node and one time, and the certificates that they are exchanged for."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NoReturn

import structlog

from controlplane import wire
from controlplane.auth.epochs import Epochs
from controlplane.auth.keys import JOIN_PREFIX, hash_of, new_secret
from controlplane.store.protocol import Compare, Entry, Store
from roundhouse.internal.v1.store_pb2 import JoinTokenRecord, NodeEpochRecord
from roundhouse.kit.certificates import Authority, Signed, public_key_hash
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Conflict, Forbidden, NoCapacity, QuotaViolation, Unauthenticated
from roundhouse.kit.times import from_timestamp, to_timestamp
from roundhouse.v1 import errors_pb2

log = structlog.get_logger()

MAX_JOIN_TOKENS = 1000
_ANOTHER = 'make another one with "roundhouse agent token"'


class Enrolling:
    """Gives nodes their certificates.

    is_known: whether the fleet knows a node of this id already. life_s: how long a certificate is good.
    most: join tokens at a time.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        authority: Authority,
        epochs: Epochs,
        is_known: Callable[[str], bool],
        *,
        life_s: float,
        most: int = MAX_JOIN_TOKENS,
    ) -> None:
        self._store, self._clock, self._authority, self._is_known = store, clock, authority, is_known
        self.epochs = epochs
        self._life_s, self._most = life_s, most

    async def create(self, lifetime_s: float, node: str) -> tuple[str, float]:
        """Makes a join token; returns its secret and when it ends. `node` is empty for any that is not known yet."""
        listing = await self._store.list(wire.JOIN_TOKENS)
        ended = [each.key for each in listing.entries if self._has_ended(_record(each))]
        if len(listing.entries) - len(ended) >= self._most:
            message = f"{self._most} join tokens wait to be used or to end: wait for that"
            raise NoCapacity(message, quota=[QuotaViolation("joinTokens", message)])
        secret, expire_s = new_secret(JOIN_PREFIX), self._clock.now() + lifetime_s
        record = JoinTokenRecord(node_id=node, expire_time=to_timestamp(expire_s))
        key = wire.join_token_key(hash_of(secret))
        await self._store.commit([Compare(key, 0)], {key: record.SerializeToString()}, ended)
        return secret, expire_s

    async def enroll(self, secret: str, node: str, request: bytes) -> Signed:
        """Uses up a join token and returns a certificate for the node.

        Raises Unauthenticated (JOIN_TOKEN_INVALID), Forbidden (NODE_MISMATCH), and InvalidArgument for the request.
        """
        entry = await self._store.get(wire.join_token_key(hash_of(secret)))
        if entry is None:
            _refuse("the join token is unknown")
        record = _record(entry)
        if self._has_ended(record):
            _refuse("the join token has expired")
        key_hash = public_key_hash(request)
        epoch_key = wire.node_epoch_key(node)
        row = await self._store.get(epoch_key)
        epoch = 0 if row is None else NodeEpochRecord.FromString(row.value).epoch
        if record.used_key_hash:
            is_same_key = hmac.compare_digest(record.used_key_hash, key_hash)
            if not (is_same_key and (record.used_node_id, record.used_epoch) == (node, epoch)):
                _refuse("the join token was used already")
        else:
            self._require_free(record, node, is_known=row is not None or self._is_known(node))
            record.used_key_hash, record.used_node_id, record.used_epoch = key_hash, node, epoch
            compares, puts = [Compare(entry.key, entry.revision)], {entry.key: record.SerializeToString()}
            if row is None:  # from now on it is not a new one, whether it joins or not
                compares.append(Compare(epoch_key, 0))
                puts[epoch_key] = NodeEpochRecord().SerializeToString()
            try:
                await self._store.commit(compares, puts)
            except Conflict:  # the token, or the id, was taken meanwhile: the second look says which
                return await self.enroll(secret, node, request)
        log.info("node enrolled", node=node)
        return self._authority.node(node, epoch, request, self._clock.now(), self._life_s)

    def renew(self, node: str, request: bytes) -> Signed:
        """Returns another certificate for a node that has shown one; raises InvalidArgument for the request."""
        return self._authority.node(node, self.epochs.of(node), request, self._clock.now(), self._life_s)

    def _require_free(self, record: JoinTokenRecord, node: str, *, is_known: bool) -> None:
        if record.node_id == node or not (record.node_id or is_known):
            return
        why = (
            f'the join token is for node "{record.node_id}", not for "{node}"'
            if record.node_id
            else f'the fleet has a node "{node}", and the join token is for a new one'
        )
        raise Forbidden(
            f'{why}: choose another --node-id, or make a token with "roundhouse agent token --node {node}"',
            reason=errors_pb2.ERROR_REASON_NODE_MISMATCH,
        )

    def _has_ended(self, record: JoinTokenRecord) -> bool:
        return from_timestamp(record.expire_time) <= self._clock.now()


def _record(entry: Entry) -> JoinTokenRecord:
    return JoinTokenRecord.FromString(entry.value)


def _refuse(why: str) -> NoReturn:
    raise Unauthenticated(f"{why}: {_ANOTHER}", reason=errors_pb2.ERROR_REASON_JOIN_TOKEN_INVALID)
