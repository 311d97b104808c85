"""Cancels requests wherever they run, and says what that proved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import grpc
import structlog

from controlplane.gateway.admission.admission import Admission
from controlplane.gateway.engines import Engines
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.tombstones import Tombstones
from controlplane.model import Route, Routes
from roundhouse.internal.hops import parse_location
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import receipt_pb2
from roundhouse.v1.inference_service_pb2 import CancelRequestRequest

log = structlog.get_logger()

ANSWER_S = 5.0  # an engine that is well answers within a step; one that hangs must not hang the caller
CONTROL_PLANE = "controlplane"  # among those that could not be asked
Receipt = receipt_pb2.CancelReceipt


class Canceller:
    """Asks engines to cancel, the likeliest first."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        engines: Engines,
        live: LiveRequests,
        tombstones: Tombstones,
        admission: Admission,
    ) -> None:
        self._routes, self._engines, self._live, self._tombstones = routes, engines, live, tombstones
        self._admission = admission

    async def cancel(self, key: RequestKey, location: str, timeout_s: float | None) -> Receipt:
        """Returns the receipt of the engine that has or had the request, else one that says what could be learned.

        What waits here, or has ended while it did, was at no engine.
        """
        unserved = self._admission.cancel(key)
        if unserved is not None:
            return unserved
        # Two rounds of questions must leave the caller time to hear what came of them.
        answer_s = ANSWER_S if timeout_s is None else min(ANSWER_S, 0.45 * timeout_s)
        said = parse_location(location)
        known = self._live.where(key)
        routes = self._routes()
        present = routes.replicas.get(key.deployment, ())
        # Where this gateway relays it, the request is, even if that engine is not among the routes just now.
        first = [known] if known is not None else [each for each in present if each.engine_uuid == said.engine_uuid]
        asked = {each.engine_uuid for each in first}
        rest = [each for each in present if each.engine_uuid not in asked]
        unreachable = [_name(key.deployment, each) for each in routes.silent.get(key.deployment, {}).values()]
        if not routes.is_current:
            unreachable.append(CONTROL_PLANE)  # which alone can tell whether there are other replicas by now
        for asking in (first, rest):
            receipts, silent = await self._ask(key, asking, receipt_pb2.CANCEL_CAUSE_CLIENT, answer_s)
            unreachable += silent
            found = [each for each in receipts if each.outcome != receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED]
            if found:
                return min(found, key=_rank)
        gone = self._gone(key, present, known, said)
        if gone is not None:
            return _receipt(key, receipt_pb2.CANCEL_OUTCOME_LOST, replica=gone)
        if unreachable or (said.engine_uuid and not first):
            return _receipt(key, receipt_pb2.CANCEL_OUTCOME_UNPROVEN, unreachable=unreachable)
        return self._tombstones.put(key, _receipt(key, receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED))

    def _gone(
        self, key: RequestKey, present: Sequence[Route], known: Route | None, said: hop_pb2.Location
    ) -> str | None:
        """Returns the replica whose engine ran the request and is no more; None unless that is certain."""
        lives = {each.engine_uuid for each in present}
        if known is not None:
            return (
                None if self._live.is_live(key) or known.engine_uuid in lives else _name(known.deployment, known.index)
            )
        if not said.engine_uuid or said.engine_uuid in lives:
            return None
        # Another life of the same replica is there, so that one is over.
        same = next((each for each in present if each.replica_uid == said.replica_uid), None)
        return None if same is None else _name(same.deployment, same.index)

    async def leave(self, key: RequestKey, route: Route) -> None:
        """Cancels a request whose client has left; its engine's orphan timer does so if this does not get through."""
        receipts, _ = await self._ask(key, [route], receipt_pb2.CANCEL_CAUSE_DISCONNECT, ANSWER_S)
        for receipt in receipts:
            log.debug("client left", request_id=key.request_id, freed_blocks=receipt.freed_block_count)

    async def _ask(
        self, key: RequestKey, routes: Sequence[Route], cause: receipt_pb2.CancelCause, timeout_s: float
    ) -> tuple[list[Receipt], list[str]]:
        """Returns the answers of those who gave one, and the names of the rest."""
        request = CancelRequestRequest(deployment=key.deployment, request_id=key.request_id)
        calls = [
            self._engines.cancel(each, request, principal=key.principal, cause=cause, timeout_s=timeout_s)
            for each in routes
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        receipts, silent = [], []
        for route, answer in zip(routes, answers, strict=True):
            # CancelledError: the channel was closed under the call, for an engine that is gone from the routes.
            if isinstance(answer, grpc.RpcError | asyncio.CancelledError):
                silent.append(_name(route.deployment, route.index))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                receipts.append(answer.receipt)
        return receipts, silent


def _rank(receipt: Receipt) -> int:
    """Of several answers to one cancel, the one of the engine that ran the request just now goes first.

    An id may have been used before, at another replica, which remembers that.
    """
    order = (receipt_pb2.CANCEL_OUTCOME_CANCELLED, receipt_pb2.CANCEL_OUTCOME_UNPROVEN)
    return order.index(receipt.outcome) if receipt.outcome in order else len(order)


def _receipt(
    key: RequestKey, outcome: receipt_pb2.CancelOutcome, *, replica: str = "", unreachable: Sequence[str] = ()
) -> Receipt:
    return Receipt(
        deployment=key.deployment,
        request_id=key.request_id,
        outcome=outcome,
        replica=replica,
        unreachable=unreachable,
        receipt_time=to_timestamp(time.time()),
    )


def _name(deployment: str, index: int) -> str:
    return f"deployments/{deployment}/replicas/{index}"
