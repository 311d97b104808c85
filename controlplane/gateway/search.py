"""Whom to ask to go on with a request whose engine is lost, and with what. Asks nobody itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from controlplane.gateway.asking import asked_of
from controlplane.gateway.record import Request, bound
from controlplane.gateway.routing.asked import Asked
from controlplane.gateway.stream import Lost
from controlplane.model import Route
from roundhouse.v1 import generation_pb2

_EXACT = generation_pb2.FAILOVER_POLICY_EXACT_ONLY
_APPROXIMATE = generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK


class Terms:
    """A failover policy, and how engines that were asked on it have answered."""

    def __init__(self, policy: generation_pb2.FailoverPolicy, fingerprint: str) -> None:
        """fingerprint: that an engine has to have; empty if any will do."""
        self.policy, self.fingerprint = policy, fingerprint
        self.tried: set[str] = set()  # engine uuids, of this round
        self.differing: set[str] = set()  # who said that they compute something else; that stays so

    def is_due(self, route: Route) -> bool:
        """Tells whether an engine that is ready is to be asked in this round."""
        return route.engine_uuid not in self.tried and not self.is_different(route)

    def is_different(self, route: Route) -> bool:
        """Tells whether an engine is known to compute something else."""
        is_other = bool(self.fingerprint) and route.fingerprint not in ("", self.fingerprint)
        return is_other or route.engine_uuid in self.differing


class Search:
    """The search for one engine, in rounds: nobody is asked twice in one, unless it was gone, or not ready, between."""

    def __init__(self, lost: Lost, request_id: str, began_s: float) -> None:
        self.lost, self.began_s = lost, began_s
        self.own = lost.route.engine_uuid
        self.is_own_tried = False
        self.seen: Sequence[Route] = ()
        self.terms = [Terms(_EXACT, lost.record.fingerprint)]
        if lost.record.options.failover == _APPROXIMATE:
            self.terms.append(Terms(_APPROXIMATE, ""))  # only if nobody is equal
        self._request_id = request_id
        self._made: tuple[Request, Asked] | None = None

    def begin_round(self) -> None:
        """Has everybody asked once more."""
        self.is_own_tried = False
        for each in self.terms:
            each.tried.clear()

    def see(self, present: Sequence[Route]) -> None:
        """Takes in who is there: whoever was asked, and is not ready now, is asked when it is."""
        self.seen = present
        uuids = {each.engine_uuid for each in present}
        self.is_own_tried = self.is_own_tried and self.own in uuids
        ready = {each.engine_uuid for each in self.ready(present)}
        for each in self.terms:
            each.tried &= ready

    def ready(self, present: Iterable[Route]) -> Sequence[Route]:
        """Returns the routes of those that may go on with it."""
        given_up = self.own if self.lost.is_drained else None
        return [each for each in present if each.is_ready and each.engine_uuid != given_up]

    def is_hopeless(self, present: Iterable[Route]) -> bool:
        """Tells whether there are engines that compute something else, and must not go on with it."""
        return any(self.terms[-1].is_different(each) for each in self.ready(present))

    def asked(self, terms: Terms) -> Asked:
        """Returns what decides who is asked first."""
        return replace(self._make()[1], is_exact_only=bool(terms.fingerprint))

    def body(self, terms: Terms, now_s: float) -> bytes:
        """Returns the request as an engine is sent it now."""
        request, _ = self._make()
        request.options.failover = terms.policy
        bound(request, self.lost.record.left_s(now_s))
        return request.SerializeToString()

    def _make(self) -> tuple[Request, Asked]:
        """Makes the request when it is needed first: it has the prompt, which costs a millisecond if it is long."""
        if self._made is None:
            record = self.lost.record
            request = record.resuming(_EXACT, self.began_s)
            asked = replace(asked_of(request), fingerprint=record.fingerprint, rendezvous_key=self._request_id)
            self._made = request, asked
        return self._made
