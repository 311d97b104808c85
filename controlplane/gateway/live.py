"""The requests that this gateway keeps: where each one runs, and which were lost with their engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.model import Route
from roundhouse.v1.receipt_pb2 import ChoicePosition

LOST_KEPT = 10_000  # as many as an engine keeps receipts


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What names a request: the same id of another principal, or at another deployment, is another request."""

    principal: str
    deployment: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Break:
    """Where a stream of a request broke: the engine that was lost, which run that was, and how far it is told."""

    route: Route
    attempt: int
    positions: Sequence[ChoicePosition] = ()  # of each choice; empty if that is not known
    prompt_token_count: int = 0


class _Kept:
    """A request that is relayed, to one client or several."""

    def __init__(self) -> None:
        self.follower_count = 0
        self.lapsed_count = 0  # of them, who stay only for the others
        self.route: Route | None = None  # where it is, or is being tried
        self.taken_at: Route | None = None  # the engine that has answered with it last
        self.is_being_placed = False
        self.changed = asyncio.Event()  # set, and replaced, when one of these changes
        self.breaks: list[Break] = []  # of its streams that look for another engine
        self.withdrawn = asyncio.Event()

    def change(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class LiveRequests:
    """Requests being relayed and where they are. One writer: the gateway's event loop."""

    def __init__(self) -> None:
        self._kept: dict[RequestKey, _Kept] = {}
        self._lost: OrderedDict[RequestKey, Route] = OrderedDict()

    @contextlib.contextmanager
    def keep(self, key: RequestKey, *, is_new: bool) -> Iterator[None]:
        """Keeps a request for the block, beside whoever else follows it."""
        kept = self._kept.setdefault(key, _Kept())
        kept.follower_count += 1
        if is_new:
            self._lost.pop(key, None)  # the id names another request from now on
        try:
            yield
        finally:
            kept.follower_count -= 1
            if not kept.follower_count:
                del self._kept[key]
            kept.change()

    async def claim(self, key: RequestKey) -> Route | None:
        """Returns where a kept request is; None if the caller, and nobody else, is to find it a place.

        Who does that releases it when the request has one, or is not to have one. Until then others wait here, also
        while an engine is tried: one that does not take it from the first is not to take it from them.
        """
        kept = self._kept[key]
        while kept.taken_at is None:
            if not kept.is_being_placed:
                kept.is_being_placed = True
                return None
            await kept.changed.wait()
        return kept.route or kept.taken_at

    def release(self, key: RequestKey) -> None:
        """Ends what `claim` began."""
        kept = self._kept[key]
        kept.is_being_placed = False
        kept.change()

    def is_being_placed(self, key: RequestKey) -> bool:
        """Tells whether somebody looks for a place for a request."""
        kept = self._kept.get(key)
        return kept is not None and kept.is_being_placed and kept.taken_at is None

    @contextlib.contextmanager
    def trying(self, key: RequestKey, route: Route) -> Iterator[None]:
        """Notes for the block that a kept request is being tried at `route`, and past it that it is there.

        If the block raises, the request is where it was before.
        """
        kept = self._kept[key]
        kept.route = route
        try:
            yield
        except BaseException:
            if kept.route is route:  # else another stream has tried one since
                kept.route = kept.taken_at
            raise
        kept.route = kept.taken_at = route
        self._lost.pop(key, None)
        kept.change()

    async def placed(self, key: RequestKey) -> None:
        """Waits for as long as somebody looks for a place for a kept request."""
        kept = self._kept[key]
        while kept.taken_at is None and kept.is_being_placed:
            await kept.changed.wait()

    @contextlib.contextmanager
    def lapsing(self, key: RequestKey) -> Iterator[None]:
        """Notes, for the block, that one of those who keep a request stays only for as long as others want it."""
        kept = self._kept[key]
        kept.lapsed_count += 1
        kept.change()
        try:
            yield
        finally:
            kept.lapsed_count -= 1

    async def unwanted(self, key: RequestKey) -> None:
        """Waits until nobody keeps a request but for the sake of others."""
        kept = self._kept[key]
        while kept.follower_count > kept.lapsed_count:
            await kept.changed.wait()

    @contextlib.contextmanager
    def between(self, key: RequestKey, at: Break) -> Iterator[asyncio.Event]:
        """Notes, for the block, that a stream of a kept request looks for another engine.

        Gives what is set if the request is withdrawn.
        """
        kept = self._kept[key]
        kept.breaks.append(at)
        try:
            yield kept.withdrawn
        finally:
            kept.breaks.remove(at)

    def withdraw(self, key: RequestKey) -> Break | None:
        """Ends a request that has lost its engine and has no other yet; returns where it broke, None if it is not one.

        Of several streams of it, that counts which came furthest.
        """
        kept = self._kept.get(key)
        if kept is None or not kept.breaks:
            return None
        kept.withdrawn.set()
        return max(kept.breaks, key=lambda each: (each.attempt, sum(one.output_token_count for one in each.positions)))

    def where(self, key: RequestKey) -> Route | None:
        """Returns where a request is now, or was when its engine was lost."""
        kept = self._kept.get(key)
        return (None if kept is None else kept.route) or self._lost.get(key)

    def is_live(self, key: RequestKey) -> bool:
        """Tells whether an engine has the request for this gateway, or somebody here looks for one that is to run it.

        Those who only look for an engine that may have it do not count: they would call each other the proof of it.
        """
        kept = self._kept.get(key)
        return kept is not None and (kept.taken_at is not None or kept.is_being_placed or bool(kept.breaks))

    def addresses(self) -> frozenset[str]:
        """Returns the addresses of the engines that have a request of this gateway."""
        return frozenset(kept.route.address for kept in self._kept.values() if kept.route is not None)

    def lose(self, key: RequestKey, route: Route) -> None:
        """Notes that the request ended with its engine; the newest 10,000 are remembered."""
        self._lost[key] = route
        kept = self._kept.get(key)
        here = None if kept is None else kept.taken_at
        if kept is not None and here is not None and here.engine_uuid == route.engine_uuid and not kept.breaks:
            kept.route = kept.taken_at = None  # who follows it still has lost it as well
        while len(self._lost) > LOST_KEPT:
            self._lost.popitem(last=False)
