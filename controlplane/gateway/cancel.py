"""Cancels requests wherever they run, and says what that proved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import grpc
import structlog

from controlplane.gateway.engines import Engines, engine_of
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.model import Route, Routes
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import receipt_pb2
from roundhouse.v1.inference_service_pb2 import CancelRequestRequest

log = structlog.get_logger()

ANSWER_S = 5.0  # an engine that is well answers within a step; one that hangs must not hang the caller
Receipt = receipt_pb2.CancelReceipt


class Canceller:
    """Asks engines to cancel, the likeliest first."""

    def __init__(self, routes: Callable[[], Routes], engines: Engines, live: LiveRequests) -> None:
        self._routes, self._engines, self._live = routes, engines, live

    async def cancel(self, key: RequestKey, location: str, timeout_s: float | None) -> Receipt:
        """Returns the receipt of the engine that has or had the request, else one that says what could be learned."""
        deadline_s = ANSWER_S if timeout_s is None else min(ANSWER_S, timeout_s)
        present = self._routes().replicas.get(key.deployment, ())
        known = self._live.where(key)
        likely = {known.engine_uuid} if known is not None else {engine_of(location)}
        first = [each for each in present if each.engine_uuid in likely]
        rest = [each for each in present if each.engine_uuid not in likely]
        unreachable: list[str] = []
        for routes in (first, rest):
            receipts, silent = await self._ask(key, routes, deadline_s)
            unreachable += silent
            for receipt in receipts:
                if receipt.outcome != receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED:
                    return receipt
        if known is not None and (not first or self._live.is_lost(key)):
            return _receipt(key, receipt_pb2.CANCEL_OUTCOME_LOST, replica=_name(known))
        if unreachable:
            return _receipt(key, receipt_pb2.CANCEL_OUTCOME_UNPROVEN, unreachable=unreachable)
        return _receipt(key, receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED)

    async def leave(self, key: RequestKey, route: Route) -> None:
        """Cancels a request whose client has left; its engine's orphan timer does so if this does not get through."""
        receipts, _ = await self._ask(key, [route], ANSWER_S)
        for receipt in receipts:
            log.debug("client left", request_id=key.request_id, freed_blocks=receipt.freed_block_count)

    async def _ask(self, key: RequestKey, routes: Sequence[Route], timeout_s: float) -> tuple[list[Receipt], list[str]]:
        """Returns the answers of those who gave one, and the names of the rest."""
        request = CancelRequestRequest(deployment=key.deployment, request_id=key.request_id)
        calls = [self._engines.cancel(each, request, principal=key.principal, timeout_s=timeout_s) for each in routes]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        receipts, silent = [], []
        for route, answer in zip(routes, answers, strict=True):
            if isinstance(answer, grpc.RpcError):
                silent.append(_name(route))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                receipts.append(answer.receipt)
        return receipts, silent


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


def _name(route: Route) -> str:
    return f"deployments/{route.deployment}/replicas/{route.index}"
