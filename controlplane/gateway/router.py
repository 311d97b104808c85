"""Picks replicas for the requests of one gateway, and remembers what it takes to do so. One writer: its event loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType

from controlplane.gateway.routing import breaker as breakers
from controlplane.gateway.routing.asked import FRONT_TOKENS, Asked
from controlplane.gateway.routing.breaker import Breaker, Gate
from controlplane.gateway.routing.budget import Budget
from controlplane.gateway.routing.choice import Question, Standing, choose
from controlplane.gateway.routing.load import (
    LEAST_LEFT,
    OUTPUT_WEIGHT,
    Own,
    Peak,
    Typical,
    free_fraction,
    tokens_at,
)
from controlplane.gateway.routing.prefixes import Prefixes
from controlplane.gateway.routing.warmth import share
from controlplane.model import Route, Routes
from controlplane.routing_policies import DEFAULT_ROUTING_POLICY
from roundhouse.kit.clock import Clock


class _Deployment:
    """What is remembered of a deployment."""

    def __init__(self) -> None:
        self.routes: Sequence[Route] = ()  # from which `ready` was made
        self.ready: Sequence[Route] = ()
        self.typical = Typical()
        self.prefixes = Prefixes()
        self.budget = Budget()
        self.turn = 0


class _Engine:
    """What is remembered of an engine: what this gateway has there, and since when it is known."""

    __slots__ = ("peak", "sequence_count", "since_s", "tokens")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.sequence_count = 0
        self.tokens = 0.0
        self.peak = Peak()

    def add(self, sequence_count: int, tokens: float, now_s: float) -> None:
        """Counts a request that begins, or ends."""
        before = self.sequence_count
        self.sequence_count += sequence_count
        self.tokens = self.tokens + tokens if self.sequence_count else 0.0  # sums of floats leave crumbs
        self.peak = self.peak.at(max(before, self.sequence_count), now_s)

    def own(self, now_s: float) -> Own:
        """Returns what this gateway has there."""
        return Own(max(0.0, self.tokens), self.peak.most(self.sequence_count, now_s))


class Router:
    """Picks replicas.

    routes: what is known of the fleet now. random: gives numbers in [0, 1).
    """

    def __init__(self, routes: Callable[[], Routes], clock: Clock, random: Callable[[], float]) -> None:
        self._routes, self._clock, self._random = routes, clock, random
        self._deployments: dict[str, _Deployment] = {}
        self._engines: dict[str, _Engine] = {}  # by engine uuid, as all that follows
        self._breakers: dict[str, Breaker] = {}  # of those that have failed
        self._has_begun = False
        self._cached: tuple[Asked, Mapping[str, int]] = (Asked(), {})  # what the last pick found, which its flight asks

    def pick(self, deployment: str, asked: Asked, tried: Collection[str] = ()) -> Route | None:
        """Returns the replica that a request should be sent to; None if there is none that is ready and was not tried.

        tried: engine uuids. Never one that is not ready; one whose breaker is open only if there is no other.
        """
        routes = self._routes()
        known, now_s = self._known(deployment, routes), self._clock.monotonic()
        cached = known.prefixes.cached(asked)
        self._cached = asked, cached
        if not tried:
            known.typical = known.typical.with_prompt(asked.token_count)
            if asked.front:
                is_known = max(cached.values(), default=0) >= FRONT_TOKENS
                known.typical = known.typical.with_front(is_known=is_known)
            known.budget = known.budget.with_request()
            known.turn += 1
        may = self._that_may(known.ready, asked, tried, now_s)
        if not may:
            return None
        typical = known.typical
        question = Question(asked, partial(typical.cost_of, asked), cached, typical.fronts_repeat, known.turn)
        stand = partial(self._stand, typical, now_s)
        policy = routes.policies.get(deployment, DEFAULT_ROUTING_POLICY)
        picked = choose(policy, may, question, stand, (self._random(), self._random()))
        found = self._breakers.get(picked.engine_uuid)
        if found is not None and found.gate(now_s) is Gate.HALF_OPEN:
            self._breakers[picked.engine_uuid] = found.probed(now_s)
        return picked

    def at(self, route: Route, asked: Asked) -> Flight:
        """Returns what notes, for a `with` block, that a request is at the engine of `route`."""
        return Flight(self, route, asked)

    def succeeded(self, route: Route) -> None:
        """Notes that an engine has taken a request, or refused it for what it is: the caller's own error."""
        found = self._breakers.get(route.engine_uuid)
        if found is not None:
            after = breakers.succeeded(found, self._clock.monotonic())
            if after is None:
                del self._breakers[route.engine_uuid]
            else:
                self._breakers[route.engine_uuid] = after

    def failed(self, route: Route, *, is_certain: bool = True) -> None:
        """Notes that an engine, or the way to it, is at fault: it took no request, or was lost with one.

        is_certain: else the engine lives, and something went wrong in it that the request may have caused.
        """
        found, now_s = self._breakers.get(route.engine_uuid), self._clock.monotonic()
        self._breakers[route.engine_uuid] = breakers.failed(found, now_s, is_certain=is_certain)

    def may_retry(self, deployment: str) -> bool:
        """Tells whether a request may be sent to another replica after one failed, and counts it if so."""
        known = self._known(deployment, self._routes())
        left = known.budget.with_retry(self._clock.monotonic())
        known.budget = left or known.budget
        return left is not None

    def follow(self) -> None:
        """Takes in that routes have changed: engines that are new become warm from now on, others are forgotten."""
        routes = self._routes()
        for deployment in routes.replicas:
            self._known(deployment, routes)
        for deployment in [each for each in self._deployments if each not in routes.replicas]:
            del self._deployments[deployment]
        present = {each.engine_uuid for replicas in routes.replicas.values() for each in replicas}
        for engine, known in list(self._engines.items()):
            if engine not in present and not known.sequence_count:
                del self._engines[engine]
        for engine in [each for each in self._breakers if each not in present]:
            del self._breakers[engine]
        self._has_begun = self._has_begun or routes.is_current

    def _known(self, deployment: str, routes: Routes) -> _Deployment:
        known = self._deployments.get(deployment)
        if known is None:
            known = self._deployments[deployment] = _Deployment()
        present = routes.replicas.get(deployment, ())
        if known.routes is not present:
            known.routes, known.ready = present, tuple(each for each in present if each.is_ready)
            for each in known.ready:
                self._engine(each)
        return known

    def _that_may(self, ready: Sequence[Route], asked: Asked, tried: Collection[str], now_s: float) -> Sequence[Route]:
        if not (tried or self._breakers or asked.is_exact_only):
            return ready
        untried = [
            each
            for each in ready
            if each.engine_uuid not in tried
            and (not asked.is_exact_only or each.fingerprint in ("", asked.fingerprint))
        ]
        closed = [each for each in untried if self._gate(each, now_s) is not Gate.OPEN]
        return closed or untried

    def _gate(self, route: Route, now_s: float) -> Gate:
        found = self._breakers.get(route.engine_uuid)
        return Gate.CLOSED if found is None else found.gate(now_s)

    def _stand(self, typical: Typical, now_s: float, route: Route) -> Standing:
        engine = self._engine(route)
        return Standing(
            tokens_at(route, engine.own(now_s), typical),
            free_fraction(route) * share(now_s - engine.since_s),
            route.is_stale,
        )

    def _engine(self, route: Route) -> _Engine:
        found = self._engines.get(route.engine_uuid)
        if found is None:
            # Those that are there at the beginning have been there for long, as far as anybody knows.
            since_s = self._clock.monotonic() if self._has_begun else float("-inf")
            found = self._engines[route.engine_uuid] = _Engine(since_s)
        return found


class Flight:
    """One request at one engine, for a `with` block. What it adds to the load there goes with what was told of it."""

    __slots__ = (
        "_asked",
        "_deployment",
        "_engine",
        "_is_probe",
        "_left",
        "_prompt",
        "_route",
        "_router",
        "_told_count",
    )

    def __init__(self, router: Router, route: Route, asked: Asked) -> None:
        self._router, self._route, self._asked = router, route, asked

    def __enter__(self) -> Flight:
        router, asked, engine = self._router, self._asked, self._route.engine_uuid
        now_s = router._clock.monotonic()
        self._deployment = router._known(self._route.deployment, router._routes())
        self._engine = router._engine(self._route)
        found = router._breakers.get(engine)
        self._is_probe = found is not None and found.probe_until_s > now_s
        self._told_count = 0
        picked, found_there = router._cached
        cached = (found_there if picked is asked else self._deployment.prefixes.cached(asked)).get(engine, 0)
        self._prompt: float = max(0, asked.token_count - cached)
        self._left = asked.choice_count * self._deployment.typical.output_of(asked)
        self._engine.add(asked.choice_count, self._prompt + OUTPUT_WEIGHT * self._left, now_s)
        self._deployment.prefixes.note(asked, engine)
        return self

    def told(self, token_count: int) -> None:
        """Notes that so many more output tokens came, of all choices together."""
        self._told_count += token_count
        least = LEAST_LEFT * self._asked.choice_count
        left = max(self._left - token_count, min(least, self._left))
        self._engine.tokens -= self._prompt + OUTPUT_WEIGHT * (self._left - left)
        self._prompt, self._left = 0.0, left

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        router, engine, count = self._router, self._route.engine_uuid, self._asked.choice_count
        self._engine.add(-count, -self._prompt - OUTPUT_WEIGHT * self._left, router._clock.monotonic())
        if self._told_count:
            self._deployment.typical = self._deployment.typical.with_output(self._told_count / count)
        found = router._breakers.get(engine)
        if self._is_probe and found is not None:
            router._breakers[engine] = found.released()
