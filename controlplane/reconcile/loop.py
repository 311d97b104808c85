"""Reads intent and facts, plans, and writes placements and assignments; again whenever something may have changed."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from controlplane.model import Attendance, Node, NodeId, Placement, ReplicaUid, Unplaced
from controlplane.placement.evictions import FROZEN, Held, departures
from controlplane.placement.strategies import STRATEGIES, Strategy
from controlplane.plan import Action, Forget, MarkStopping, Place, Plan, Remove, plan
from controlplane.reconcile.reader import Reader
from controlplane.reconcile.refused import Refused
from controlplane.store.protocol import Compare, Listing
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Conflict, RoundhouseError
from roundhouse.kit.latest import Latest
from roundhouse.kit.pace import Pace

log = structlog.get_logger()

_PAUSE = Backoff(first_s=0.1, cap_s=5.0)  # between rounds that fail
_PACE = Pace(most_fraction=0.5)  # of rounds that nobody waits for


class Records(Protocol):
    """What the loop needs of the store."""

    async def list(self, prefix: str) -> Listing:
        """Returns the entries under a prefix."""

    async def commit(self, compares: Sequence[Compare], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        """Writes all or nothing; raises Conflict if a compare does not hold."""


class Fleet(Protocol):
    """What the loop needs of the fleet's registry."""

    def nodes(self) -> Mapping[NodeId, Node]:
        """Returns every node that was heard of since the start, as last reported."""

    def attendance(self) -> Attendance:
        """Returns which of them are silent, and for how long this process has listened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last round came to."""

    unplaced: Mapping[tuple[str, int], Unplaced]  # by (bare deployment id, index)
    observed: Mapping[str, int]  # by uid of the deployment: the generation that was acted upon
    held: Mapping[NodeId, Held] = field(default_factory=dict)  # nodes that do not report, and why nothing leaves them


class Reconciler:
    """The loop. A hint that is lost costs a period; what one round raises, the next one makes good."""

    def __init__(
        self,
        store: Records,
        fleet: Fleet,
        *,
        term: int,
        clock: Clock,
        period_s: float = 1.0,
        new_uid: Callable[[], ReplicaUid] = lambda: ReplicaUid(str(uuid.uuid4())),
        strategies: Mapping[str, Strategy] = STRATEGIES,
    ) -> None:
        self._store, self._fleet, self._clock = store, fleet, clock
        self._period_s, self._new_uid, self._strategies = period_s, new_uid, strategies
        self._hinted = asyncio.Event()
        self._called = asyncio.Event()  # by somebody who waits for it
        self._reader = Reader(store, term)
        self._refused = Refused()
        self._turn = 0  # counts the rounds
        self.outcome = Latest(Outcome({}, {}))

    @property
    def unplaced(self) -> Mapping[tuple[str, int], Unplaced]:
        """Returns the replicas without a place, and those that their node refuses and no other takes, and why."""
        return self.outcome.get().unplaced

    def hint(self) -> None:
        """Says that a look is worth while. From the event loop's thread."""
        self._hinted.set()
        self._called.set()

    def hint_soon(self) -> None:
        """The same, of what a node reports: of a thousand that join, rounds look at most half of the time."""
        self._hinted.set()

    async def run(self) -> None:
        """Runs rounds until it is cancelled."""
        failed_count = 0
        while True:
            self._hinted.clear()  # before the reading, so that no change falls between
            self._called.clear()
            start_s, pause_s = self._clock.monotonic(), self._period_s
            try:
                await self.round()
                failed_count = 0
            except Conflict as conflict:
                log.debug("round overtaken", error=conflict.message)
                continue
            except Exception as error:
                pause_s = _PAUSE.delay_s(failed_count)
                failed_count += 1
                is_fault = not isinstance(error, RoundhouseError)
                log.error("round failed", error=str(error), attempt=failed_count, exc_info=error if is_fault else None)
            rest_s = _PACE.rest_s(self._clock.monotonic() - start_s)
            await _wait(self._hinted, pause_s)
            await _wait(self._called, rest_s)

    async def round(self) -> None:
        """Looks once and writes what is to be done; raises Conflict if somebody wrote at the same time."""
        seen = await self._reader.read()
        facts = self._fleet.nodes()
        now = departures(facts, self._fleet.attendance(), seen.wishes, {each.node for each in seen.placements})
        nodes = now.nodes
        self._refused.note(seen.placements, nodes, self._clock.monotonic())
        planned = plan(
            seen.wanted,
            seen.placements,
            nodes,
            orders=seen.orders,
            refused=self._refused.spots,
            new_uid=self._new_uid,
            strategies=self._strategies,
            turn=self._turn,
            leaving=now.leaving,
            forgotten=now.forgotten,
        )
        self._turn += 1
        change = seen.change(planned, nodes)
        if change is not None:
            try:
                revision = await self._store.commit(change.compares, change.puts, change.deletes)
            except Conflict:
                raise  # the next round comes at once
            except RoundhouseError as error:
                unplaced = [*planned.unplaced, *_unwritten(planned, error)]
                self._tell(self.outcome.get().observed, unplaced, now.held)
                raise
            for action in planned.actions:
                _log(action, revision)
        self._tell({each.uid: each.generation for each in seen.wanted}, planned.unplaced, now.held)

    def _tell(self, observed: Mapping[str, int], unplaced: Sequence[Unplaced], held: Mapping[NodeId, Held]) -> None:
        before = self.outcome.get()
        outcome = Outcome({(each.deployment, each.index): each for each in unplaced}, observed, held)
        if outcome != before:
            self.outcome.set(outcome)
        _log_frozen(_frozen(before.held), _frozen(held))


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):  # wait_for of Python 3.11 may swallow a cancel
            await event.wait()


def _unwritten(planned: Plan, error: RoundhouseError) -> Iterator[Unplaced]:
    """Yields the replicas that have a place which could not be written, and why."""
    for action in planned.actions:
        if isinstance(action, Place):
            placement = action.placement
            reason = f'replica "{placement.deployment}-{placement.index}" has a place on node {placement.node}, which '
            reason += f"cannot be written: {error.message}"
            yield Unplaced(placement.deployment, placement.index, reason)


def _frozen(held: Mapping[NodeId, Held]) -> Mapping[NodeId, Held]:
    return {node: each for node, each in held.items() if each.reason == FROZEN}


def _log_frozen(before: Mapping[NodeId, Held], after: Mapping[NodeId, Held]) -> None:
    if after and after.keys() != before.keys():
        log.warning("evictions frozen", node=",".join(sorted(after)), reason=next(iter(after.values())).message)
    elif before and not after:
        log.info("evictions go on", node=",".join(sorted(before)))


def _log(action: Action, revision: int) -> None:
    match action:
        case Forget(deployment):
            log.info("deployment gone", deployment=deployment, revision=revision)
        case Place(placement):
            _log_replica("replica placed", placement, revision)
        case MarkStopping(placement):
            _log_replica("replica stops", placement, revision)
        case Remove(placement):
            _log_replica("replica gone", placement, revision)


def _log_replica(event: str, placement: Placement, revision: int) -> None:
    log.info(
        event,
        replica=f"{placement.deployment}-{placement.index}",
        node=placement.node,
        gpu=",".join(placement.gpus),
        bytes=placement.reserved_bytes,
        revision=revision,
    )
