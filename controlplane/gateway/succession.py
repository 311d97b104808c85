"""Which replica goes on with a request whose engine is lost. Pure: two gateways that know the same choose the same."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from controlplane.model import Route


def successors(
    routes: Iterable[Route], request_id: str, *, fingerprint: str = "", without: Collection[str] = ()
) -> list[Route]:
    """Returns the ready replicas in the order in which they are asked.

    Those known to be equal come first, those known to be others last; among equals it is the rendezvous order of the
    request's id. without: engines, by uuid, that are not asked.
    """

    def order(route: Route) -> tuple[int, bytes]:
        rendezvous = hashlib.sha256(f"{request_id}/{route.engine_uuid}".encode()).digest()
        return _likeness(route, fingerprint), rendezvous

    return sorted((each for each in routes if each.is_ready and each.engine_uuid not in without), key=order)


def _likeness(route: Route, fingerprint: str) -> int:
    known: str = getattr(route, "fingerprint", "")
    if not known or not fingerprint:
        return 1
    return 0 if known == fingerprint else 2
