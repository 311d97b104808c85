"""Finds requests wherever they run, one by its id or all of a caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from controlplane.gateway.admission.admission import Admission
from controlplane.gateway.cancel import GIVEN_UP, lost
from controlplane.gateway.depositing import best_of
from controlplane.gateway.engines import Engines, Party
from controlplane.gateway.live import LiveRequests, RequestKey
from controlplane.gateway.placing import RETRY_AFTER_S
from controlplane.gateway.polling import answer_s, ask
from controlplane.gateway.tombstones import Tombstones
from controlplane.gateway.whereabouts import gone, whereabouts
from controlplane.model import Route, Routes
from roundhouse.internal import unserved
from roundhouse.internal.hops import parse_location
from roundhouse.internal.request_pages import format_page_token, parse_page_token, place_of
from roundhouse.kit.errors import Conflict, NotFound, Resource, RoundhouseError, Unreachable
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import errors_pb2, inference_service_pb2, receipt_pb2, request_pb2

PAGE_SIZE = 100
_NO = frozenset({grpc.StatusCode.NOT_FOUND})
Found = request_pb2.InferenceRequest
Receipt = receipt_pb2.CancelReceipt


@dataclass(frozen=True, slots=True)
class Place:
    """An engine that has or had a request, and which run of it."""

    route: Route
    attempt: int
    is_last: bool  # no other engine may have it by now


class Lookup:
    """Asks engines for requests, the likeliest first."""

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

    async def find(self, key: RequestKey, location: str, timeout_s: float | None) -> Place:
        """Returns the engine that has or had the request.

        Raises NotFound if nobody has it or it never came, Conflict if it is lost, Unreachable if not everybody could be
        asked.
        """
        heard = await self._ask(key, location, timeout_s)
        best = heard.best()
        if best is None or best[1].state == request_pb2.REQUEST_STATE_NEVER_CAME:
            raise _absent(key, heard)
        route, found = best
        is_given_up = _is_given_up(found)
        if is_given_up and heard.gone is not None:  # which has had it since
            raise _lost(key, heard.gone)
        return Place(route, found.attempt, is_last=not (is_given_up and heard.unreachable))

    async def get(self, key: RequestKey, location: str, timeout_s: float | None) -> Found:
        """Returns what is known of a request; raises as `find` does.

        One that ended while it waited, here or at another gateway, that is lost, or that is refused, is told of as long
        as that is remembered.
        """
        if self._admission.is_waiting(key):
            return self._waiting(key)
        heard = await self._ask(key, location, timeout_s)
        best = heard.best()
        if best is not None and best[1].state != request_pb2.REQUEST_STATE_NEVER_CAME:
            return best[1]
        ended = best_of(self._admission.receipt(key), heard.deposited, all_answered=not heard.unreachable)
        if ended is not None:
            return unserved.view(ended)
        if best is not None:
            return best[1]
        if heard.gone is not None:
            return _told(key, request_pb2.REQUEST_STATE_ENDED, lost(key, heard.gone))
        receipt = self._tombstones.receipt(key)
        if receipt is None:
            raise _absent(key, heard)
        return _told(key, request_pb2.REQUEST_STATE_NEVER_CAME, receipt)

    async def list(
        self, principal: str, request: inference_service_pb2.ListRequestsRequest, timeout_s: float | None
    ) -> inference_service_pb2.ListRequestsResponse:
        """Returns a page of the requests of a caller, newest first, and whom it lacks."""
        routes = self._routes()
        present = routes.replicas.get(request.deployment, ())
        places = whereabouts(request.deployment, None, parse_location(""), routes)
        answers, silent = await ask(
            present,
            lambda each: self._engines.list(each, request, Party(principal), timeout_s=answer_s(timeout_s)),
        )
        # What one gateway has left with two engines, as the first did not seem to take it, is told once.
        told = [each for _, answer in answers for each in answer.requests]
        deposited = {place_of(each): each for each in told if _is_deposited(each)}
        found = [*(each for each in told if not _is_deposited(each)), *deposited.values()]
        if not request.states or request_pb2.REQUEST_STATE_WAITING in request.states:
            mine = [
                self._waiting(each)
                for each in self._admission.waiting(request.deployment)
                if each.principal == principal
            ]
            end = parse_page_token(request.page_token) if request.page_token else None
            found += [each for each in mine if end is None or place_of(each) < end]
        found.sort(key=place_of, reverse=True)
        page = found[: request.page_size or PAGE_SIZE]
        has_more = len(found) > len(page) or any(answer.next_page_token for _, answer in answers)
        token = format_page_token(place_of(page[-1])) if page and has_more else ""
        return inference_service_pb2.ListRequestsResponse(
            requests=page, next_page_token=token, unreachable=[*places.unreachable, *silent]
        )

    def _waiting(self, key: RequestKey) -> Found:
        """Returns what is known of a request that waits here for its turn."""
        return Found(
            deployment=key.deployment,
            request_id=key.request_id,
            state=request_pb2.REQUEST_STATE_WAITING,
            arrival_time=to_timestamp(self._admission.arrival_time_s(key)),
        )

    async def _ask(self, key: RequestKey, location: str, timeout_s: float | None) -> _Heard:
        said, known, routes = parse_location(location), self._live.where(key), self._routes()
        places = whereabouts(key.deployment, known, said, routes)
        request = inference_service_pb2.GetRequestRequest(deployment=key.deployment, request_id=key.request_id)
        heard = _Heard(unreachable=list(places.unreachable))
        for asking in (places.first, places.rest):
            answers, silent = await ask(
                asking,
                lambda each: self._engines.get(each, request, Party(key.principal), timeout_s=answer_s(timeout_s)),
                no=_NO,
                enough=lambda answer: _is_live(answer.request),
            )
            heard.unreachable += silent
            heard.found += [(route, answer.request) for route, answer in answers if not _is_deposited(answer.request)]
            if known is None and not said.engine_uuid:  # else an engine has had it since
                heard.deposited += [each.request.receipt for _, each in answers if _is_deposited(each.request)]
            if any(not _is_given_up(each) for _, each in heard.found):
                break
        if said.engine_uuid and not places.first:
            heard.unreachable.append("its engine")
        present = routes.replicas.get(key.deployment, ())
        heard.gone = gone(known, said, present, is_live=self._live.is_live(key))
        return heard


@dataclass(slots=True)
class _Heard:
    """What engines said of one id."""

    found: list[tuple[Route, Found]] = field(default_factory=list)  # runs
    deposited: list[Receipt] = field(default_factory=list)  # of a request that ended while it waited at a gateway
    unreachable: list[str] = field(default_factory=list)
    gone: str | None = None  # the replica that is certain to have run it, and is no more

    def best(self) -> tuple[Route, Found] | None:
        """Returns the run that counts."""
        return max(self.found, key=lambda each: _rank(each[1]), default=None)


def _absent(key: RequestKey, heard: _Heard) -> RoundhouseError:
    """Returns the error of a request that nobody has who could be asked."""
    if heard.gone is not None:
        return _lost(key, heard.gone)
    return _unknown(key, heard.unreachable) if heard.unreachable else _not_found(key)


def _told(key: RequestKey, state: request_pb2.RequestState, receipt: Receipt) -> Found:
    return Found(deployment=key.deployment, request_id=key.request_id, state=state, receipt=receipt)


def _is_deposited(found: Found) -> bool:
    """Tells whether an engine only keeps the receipt that a gateway has left with it."""
    return found.state == request_pb2.REQUEST_STATE_ENDED and not found.attempt


def _is_given_up(found: Found) -> bool:
    """Tells whether an engine has ended a request that another one may have by now."""
    return found.HasField("receipt") and found.receipt.cause in GIVEN_UP


def _is_live(found: Found) -> bool:
    return found.state in (request_pb2.REQUEST_STATE_WAITING, request_pb2.REQUEST_STATE_RUNNING)


def _rank(found: Found) -> tuple[bool, int, int]:
    """Of several that know an id, the one that runs it goes first, then the one that ran it last."""
    return _is_live(found), found.attempt, found.arrival_time.ToNanoseconds()


def _not_found(key: RequestKey) -> RoundhouseError:
    return NotFound(
        f'request "{key.request_id}" is not known at deployment "{key.deployment}": check the id; what has ended is '
        "kept for minutes only",
        reason=errors_pb2.ERROR_REASON_REQUEST_NOT_FOUND,
        resource=Resource("roundhouse.v1.InferenceRequest", key.request_id),
    )


def _lost(key: RequestKey, replica: str) -> Conflict:
    return Conflict(
        f'the engine that ran request "{key.request_id}" is gone: send the request again',
        reason=errors_pb2.ERROR_REASON_REQUEST_LOST,
        metadata={"replica": replica},
    )


def _unknown(key: RequestKey, unreachable: list[str]) -> Unreachable:
    return Unreachable(
        f'where request "{key.request_id}" runs cannot be told, {", ".join(unreachable)} does not answer: try again',
        reason=errors_pb2.ERROR_REASON_INTERRUPTED,
        retry_after_s=RETRY_AFTER_S,
    )
