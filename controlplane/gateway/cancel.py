"""Cancels requests wherever they run, and says what that proved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from controlplane.gateway.admission.admission import Admission
from controlplane.gateway.depositing import Depositing, best_of
from controlplane.gateway.engines import Engines, Party
from controlplane.gateway.live import Break, LiveRequests, RequestKey
from controlplane.gateway.polling import ANSWER_S, answer_s, ask
from controlplane.gateway.tombstones import Tombstones
from controlplane.gateway.whereabouts import gone, name, whereabouts
from controlplane.model import Route, Routes
from roundhouse.internal.hops import parse_location
from roundhouse.internal.unserved import may_come_again
from roundhouse.kit.tasks import Background
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import receipt_pb2
from roundhouse.v1.inference_service_pb2 import CancelRequestRequest

log = structlog.get_logger()

Receipt = receipt_pb2.CancelReceipt
GIVEN_UP = (receipt_pb2.CANCEL_CAUSE_HANDOVER, receipt_pb2.CANCEL_CAUSE_ORPHANED)  # by one engine, for another


class Canceller:
    """Asks engines to cancel, the likeliest first."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        engines: Engines,
        live: LiveRequests,
        tombstones: Tombstones,
        admission: Admission,
        depositing: Depositing,
        finishing: Background,
    ) -> None:
        """finishing: sees to its end what is still said to engines that hang once a cancel is answered."""
        self._finishing = finishing
        self._routes, self._engines, self._live, self._tombstones = routes, engines, live, tombstones
        self._admission, self._depositing = admission, depositing

    async def cancel(self, key: RequestKey, location: str, timeout_s: float | None) -> Receipt:
        """Returns the receipt of the engine that has or had the request, else one that says what could be learned.

        What waits here is at no engine, and others are to know that before it is said. What an engine has given up may
        be at another one.
        """
        waited = self._admission.cancel(key)
        if waited is not None:
            waited = self._tombstones.put(key, waited)  # it may be on its way once more
            await self._depositing.wait(key, answer_s(timeout_s))
            return waited
        at, said, routes = self._live.withdraw(key), parse_location(location), self._routes()
        known = self._live.where(key) if at is None else at.route
        places = whereabouts(key.deployment, known, said, routes)
        unreachable = list(places.unreachable)
        party, cause = Party(key.principal), receipt_pb2.CANCEL_CAUSE_CLIENT
        given_up: list[Receipt] = []
        deposited: list[Receipt] = []
        for asking in (places.first, places.rest):
            receipts, silent = await self._ask(key, asking, party, cause, answer_s(timeout_s))
            if at is None or asking is not places.first or self._is_there(at.route):
                unreachable += silent
            came = [each for each in receipts if each.outcome != receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED]
            deposited += [each for each in came if not each.attempt]
            ran = [each for each in came if each.attempt]
            given_up += [each for each in ran if each.cause in GIVEN_UP]
            found = [each for each in ran if each.cause not in GIVEN_UP]
            if found:
                return min(found, key=_rank)
        own = self._admission.receipt(key)
        if at is not None:
            return self._withdrawn(key, at, own, unreachable)
        if given_up and (own is None or may_come_again(own)):
            return min(given_up, key=_rank)
        if known is not None or said.engine_uuid:
            deposited = []  # before an engine had it
        unserved = best_of(own, deposited, all_answered=not unreachable)
        if unserved is not None:
            return unserved
        present = routes.replicas.get(key.deployment, ())
        replica = gone(known, said, present, is_live=self._live.is_live(key))
        if replica is not None:
            return lost(key, replica)
        if unreachable or (said.engine_uuid and not places.first):
            return _receipt(key, receipt_pb2.CANCEL_OUTCOME_UNPROVEN, unreachable=unreachable)
        return self._tombstones.put(key, _receipt(key, receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED))

    def _withdrawn(self, key: RequestKey, at: Break, own: Receipt | None, unreachable: Sequence[str]) -> Receipt:
        """Returns the receipt of a request that had lost its engine, was not to have another one, and runs nowhere.

        Unless somebody was silent: then it may run, as an orphan of this gateway, and whoever asks again learns more.
        """
        if unreachable:
            self._live.lose(key, at.route)
            return _receipt(key, receipt_pb2.CANCEL_OUTCOME_UNPROVEN, unreachable=unreachable)
        if own is not None and not may_come_again(own):
            return own  # another cancel was quicker
        receipt = _stopped(key, at)
        self._admission.keep(key, receipt)
        return receipt

    def _is_there(self, route: Route) -> bool:
        present = self._routes().replicas.get(route.deployment, ())
        return any(each.engine_uuid == route.engine_uuid for each in present)

    async def leave(self, key: RequestKey, route: Route, party: Party) -> None:
        """Says that a client has left; its engine's orphan timer does so if this does not get through."""
        receipts, _ = await self._ask(key, [route], party, receipt_pb2.CANCEL_CAUSE_DISCONNECT, ANSWER_S)
        for receipt in receipts:
            log.debug("client left", request_id=key.request_id, freed_blocks=receipt.freed_block_count)

    async def _ask(
        self,
        key: RequestKey,
        routes: Sequence[Route],
        party: Party,
        cause: receipt_pb2.CancelCause,
        timeout_s: float,
    ) -> tuple[list[Receipt], list[str]]:
        """Returns the answers of those who gave one, and the names of the rest."""
        request = CancelRequestRequest(deployment=key.deployment, request_id=key.request_id)
        # An engine that hangs may run it as well, and is to find the cancel when it goes on.
        answers, silent = await ask(
            routes,
            lambda each: self._engines.cancel(each, request, party, cause=cause, timeout_s=timeout_s),
            enough=lambda answer: _is_proof(answer.receipt),
            finishing=self._finishing,
        )
        return [answer.receipt for _, answer in answers], silent


def lost(key: RequestKey, replica: str) -> Receipt:
    """Returns the receipt of a request whose engine is gone."""
    return _receipt(key, receipt_pb2.CANCEL_OUTCOME_LOST, replica=replica)


def _stopped(key: RequestKey, at: Break) -> Receipt:
    """Returns the receipt of a request that no engine computes any more since it broke off."""
    receipt = _receipt(key, receipt_pb2.CANCEL_OUTCOME_CANCELLED, replica=name(at.route.deployment, at.route.index))
    receipt.level, receipt.cause = receipt_pb2.CANCEL_LEVEL_STOPPED, receipt_pb2.CANCEL_CAUSE_CLIENT
    receipt.attempt, receipt.prompt_token_count = at.attempt, at.prompt_token_count
    if at.positions:
        receipt.positions.extend(at.positions)
        receipt.output_token_count = sum(each.output_token_count for each in at.positions)
    return receipt


def _is_proof(receipt: Receipt) -> bool:
    """Tells whether an engine that ran a request has ended it for this cancel."""
    is_cancelled = receipt.outcome == receipt_pb2.CANCEL_OUTCOME_CANCELLED
    return is_cancelled and receipt.cause == receipt_pb2.CANCEL_CAUSE_CLIENT and receipt.attempt > 0


def _rank(receipt: Receipt) -> tuple[int, int]:
    """Of several answers to one cancel, the one of the engine that ran the request just now goes first.

    An id may have been used before, at another replica, which remembers that; and it may have run at one after another.
    """
    order = (receipt_pb2.CANCEL_OUTCOME_CANCELLED, receipt_pb2.CANCEL_OUTCOME_UNPROVEN)
    rank = order.index(receipt.outcome) if receipt.outcome in order else len(order)
    return rank, -receipt.attempt


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
