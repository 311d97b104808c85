"""Chooses a replica among those that may be asked. Pure: no clock, no I/O, no logging, no state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.gateway.routing.asked import FRONT_TOKENS, Asked
from controlplane.gateway.routing.rendezvous import first_of
from controlplane.model import Route
from controlplane.routing_policies import RoutingPolicy

# A replica that a request would rather go to, because its prompt or its session is there, is passed over if it has more
# to do than this many times what the one has that it would go to else, and this many such requests more.
MOST_TIMES, MOST_MORE = 1.5, 2.0


@dataclass(slots=True)  # not frozen, which would take thrice as long to make, as in `Own`
class Standing:
    """What is known of how busy a replica is. Nothing changes it."""

    tokens: float  # weighted, that it has before it
    room: float = 1.0  # in (0, 1]: its free share of memory, times its share of requests while it is fresh
    is_stale: bool = False  # its load is not known: it may be as busy as can be

    def after(self, cost: float) -> tuple[bool, float]:
        """Returns how busy it is with so many tokens more; less is better. Saturated, if that is not known."""
        return self.is_stale, (self.tokens + cost) / self.room


@dataclass(frozen=True, slots=True)
class Question:
    """A request to be routed."""

    asked: Asked
    cost: Callable[[int], float]  # weighted tokens that it adds to an engine that has so many tokens of its prompt
    cached: Mapping[str, int]  # tokens of its prompt that engines have, by engine uuid
    fronts_repeat: bool = False  # its prompt is likely to begin as others did
    turn: int = 0  # counts the requests of the deployment


Stand = Callable[[Route], Standing]


def choose(
    policy: RoutingPolicy, routes: Sequence[Route], question: Question, stand: Stand, draws: tuple[float, float]
) -> Route:
    """Returns one of the routes, of which there is at least one.

    draws: two random numbers in [0, 1), on which nothing but a choice between equals, or of whom to compare, depends.
    """
    asked = question.asked
    if asked.fingerprint:
        routes = [each for each in routes if each.fingerprint == asked.fingerprint] or routes
    if asked.rendezvous_key:
        return first_of(asked.rendezvous_key, routes)
    if policy == "round_robin":
        return routes[question.turn % len(routes)]
    two = policy == "power_of_two" and len(routes) > 2
    # Those who were not drawn are not looked at: everybody who looked at all would send to the same one.
    compared = _two_of(routes, draws) if two else _from(routes, draws[0])
    cost = question.cost(0)
    plain = min(compared, key=lambda each: stand(each).after(cost))  # of equals the first
    return _preferred(routes, plain, question, stand) or plain


def may_prefer(preferred: Standing, other: Standing, cost: float) -> bool:
    """Tells whether a request may go where its prompt or session is, rather than to one that is less busy.

    cost: of the request, where nothing of it is cached.
    """
    stale, busy = preferred.after(0)
    other_stale, other_busy = other.after(0)
    if stale != other_stale:
        return other_stale
    return busy <= MOST_TIMES * other_busy + MOST_MORE * cost / other.room


def _preferred(routes: Sequence[Route], plain: Route, question: Question, stand: Stand) -> Route | None:
    """Returns where a request would rather go than to the one that is least busy, if it may; None if nowhere."""
    asked, cached, cost, standing = question.asked, question.cached, question.cost(0), stand(plain)
    if asked.session_key:
        home = first_of(asked.session_key, routes)
        if home is plain or may_prefer(stand(home), standing, cost):
            return home
    if asked.front and question.fronts_repeat and max(cached.values(), default=0) < FRONT_TOKENS:
        # Another gateway may know where it is, and would have begun here, too.
        home = first_of(asked.front, routes)
        if home is plain or may_prefer(stand(home), standing, cost):
            return home
    if not cached:
        return None
    holders = [each for each in routes if each.engine_uuid in cached]
    near = [each for each in holders if may_prefer(stand(each), standing, cost)]

    def busy(route: Route) -> tuple[bool, float]:
        return stand(route).after(question.cost(cached.get(route.engine_uuid, 0)))

    return min([plain, *near], key=busy)  # what is saved must be more than what others there have before it


def _two_of(routes: Sequence[Route], draws: tuple[float, float]) -> Sequence[Route]:
    first = int(draws[0] * len(routes))
    second = int(draws[1] * (len(routes) - 1))
    return routes[first], routes[second + (second >= first)]


def _from(routes: Sequence[Route], draw: float) -> Sequence[Route]:
    """Returns all, beginning anywhere, so that of equals not always the same is first."""
    begin = int(draw * len(routes))
    return [*routes[begin:], *routes[:begin]]
