"""Makes the engines of this node what the assignment wants: a thin loop around `plan`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import structlog

from nodeagent import plan
from nodeagent.assignment import AssignmentFile, from_wire
from nodeagent.bundle import Bundle, Bundles
from nodeagent.engine import Engine
from nodeagent.launch import Launch, Started, assigned_in, discard, recover, sources_of
from nodeagent.lives import Lives
from nodeagent.model import (
    Assigned,
    Assignment,
    Desired,
    Exit,
    Measured,
    Occupant,
    Order,
    Reading,
    Sample,
    State,
    Timing,
)
from nodeagent.process import end_session
from roundhouse.internal.v1 import agent_service_pb2, engine_spec_pb2
from roundhouse.kit.clock import Clock
from roundhouse.kit.latest import Latest
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_pb2

log = structlog.get_logger()

LOOK_PERIOD_S = 10.0  # all that matters gives a hint; this bounds what a forgotten one costs
ADOPT_WITHIN_S = 3.0  # the first report waits this long for engines to answer, so that none seems to have left READY


class Supervisor:
    """Owns the engines of this node. A context manager: entering adopts what runs, leaving lets go of it.

    Reads `samples`, writes `occupants`. `on_change` is called whenever a report should be sent at once.
    """

    def __init__(
        self,
        how: Launch,
        bundles: Bundles,
        kept: AssignmentFile,
        occupants: Latest[tuple[Occupant, ...]],
        samples: Latest[Sample | None],
        *,
        timing: Timing,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._how, self._bundles, self._kept = how, bundles, kept
        self._occupants, self._samples = occupants, samples
        self._timing, self._clock, self._on_change = timing, clock, on_change
        self._assignment: Assignment | None = None
        self._starts_from_s = 0.0  # monotonic
        self._engines: dict[str, Engine] = {}
        self._refusals: dict[str, plan.Refuse] = {}
        self._last_refused = ""
        self._hint = asyncio.Event()
        self._lives = Lives(
            how,
            bundles,
            samples,
            timing=timing,
            clock=clock,
            on_load=self._publish,
            on_lack=self._lack,
        )

    async def __aenter__(self) -> Self:
        try:
            self._assignment = self._kept.load()
        except (OSError, ValueError) as error:
            log.error("the last assignment cannot be read: the next is taken, whatever its order", error=str(error))
        self._starts_from_s = self._clock.monotonic() + self._timing.ask_first_s
        await self._lives.__aenter__()
        for bundle in await asyncio.to_thread(self._bundles.open):
            await self._adopt(bundle)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPT_WITHIN_S):
                for engine in self._engines.values():
                    await engine.settled.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lives.__aexit__(kind, error, trace)

    @property
    def applied(self) -> Order | None:
        """Returns the order of the assignment that is obeyed."""
        return None if self._assignment is None else self._assignment.order

    async def take(self, message: agent_service_pb2.JoinResponse) -> bool:
        """Obeys an assignment from now on, unless it is malformed or out of order; tells whether it does."""
        try:
            offered = from_wire(message)
            refused = plan.refusal(self.applied, offered.order)
        except ValueError as error:
            refused = f"it is malformed: {error}"
        else:
            if refused is None and offered.order != self.applied:
                await self._replace(offered, message)
        if refused is None and self._starts_from_s:
            self._starts_from_s = 0.0
            self._hint.set()
        if refused is not None and refused != self._last_refused:
            log.error("assignment refused", reason=refused)
        self._last_refused = refused or ""
        return refused is None

    async def run(self) -> None:
        """Moves the engines towards the assignment until cancelled."""
        while True:
            self._hint.clear()  # before the look, so that no change falls between
            due_s = self._clock.monotonic() + LOOK_PERIOD_S
            await self._kept.keep()
            for action in self._plan():
                if isinstance(action, plan.Wait):
                    due_s = min(due_s, action.until_s)
                else:
                    await self._apply(action)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due_s - self._clock.monotonic())):
                    await self._hint.wait()

    async def stop_all(self, grace_s: float) -> None:
        """Drains and stops every engine; returns when none is left. Not while `run` runs: it would start them again."""
        for engine in self._engines.values():
            if engine.state is not State.STOPPED:
                engine.stop(grace_s)
                self._lives.stop(engine)
        while any(each.state is not State.STOPPED for each in self._engines.values()):
            self._hint.clear()
            await self._hint.wait()

    def reports(self) -> Sequence[agent_service_pb2.EngineReport]:
        """Returns what is known of every engine."""
        sample = self._samples.get()
        measured = {} if sample is None else sample.engines
        return [
            each.report(measured.get(uid, Measured(0, 0)))
            for uid, each in self._engines.items()
            if uid not in self._refusals  # else it is only being looked whether it can be started now
        ]

    def models(self) -> Sequence[deployment_pb2.ModelSource]:
        """Returns the models that engines run from, or will when they start again."""
        found: list[deployment_pb2.ModelSource] = []
        for each in self._engines.values():
            if each.state is not State.STOPPED:
                found += sources_of(engine_spec_pb2.EngineSpec.FromString(each.assigned.spec))
        return found

    def virtual_envs(self) -> Sequence[deployment_pb2.VirtualEnv]:
        """Returns the environments of the replicas that are assigned to this node, or run here."""
        specs = [each.assigned.spec for each in self._engines.values() if each.state is not State.STOPPED]
        if self._assignment is not None:
            specs += [each.spec for each in self._assignment.replicas if each.desired is Desired.RUNNING]
        told = map(engine_spec_pb2.EngineSpec.FromString, set(specs))
        return [each.virtual_env for each in told if each.HasField("virtual_env")]

    def refusals(self) -> Sequence[agent_service_pb2.Refusal]:
        """Returns which replicas are not started, and why."""
        now_s, monotonic_s = self._clock.now(), self._clock.monotonic()
        return [
            agent_service_pb2.Refusal(
                replica_uid=uid,
                gpu_uuids=each.assigned.gpu_uuids,
                message=each.message,
                available_memory_bytes=each.available_bytes,
                is_node_wide=each.is_node_wide,
                not_before_time=to_timestamp(now_s + each.not_before_s - monotonic_s),
            )
            for uid, each in self._refusals.items()
        ]

    async def _replace(self, offered: Assignment, message: agent_service_pb2.JoinResponse) -> None:
        await self._kept.keep(message)
        self._assignment = offered
        mentioned = {each.replica_uid: each for each in offered.replicas}
        for uid, engine in self._engines.items():
            if uid in mentioned:
                engine.assign(mentioned[uid])
        self._refusals = {uid: each for uid, each in self._refusals.items() if uid in mentioned}
        self._changed()

    def _lack(self, engine: Engine, message: str) -> None:
        assigned = engine.assigned
        self._engines.pop(assigned.replica_uid)
        refused = plan.lacking(assigned, message, self._clock.monotonic())
        if assigned.replica_uid not in self._refusals:
            log.warning("replica refused", replica=assigned.replica, reason=message)
        self._refusals[assigned.replica_uid] = refused
        self._changed()

    def _plan(self) -> Sequence[plan.Action]:
        known = [each.known() for each in self._engines.values()]
        refused = {uid: each.not_before_s for uid, each in self._refusals.items()}
        now_s = self._clock.monotonic()
        actions = plan.plan(self._assignment, known, self._gpus(), refused, now_s)
        if now_s >= self._starts_from_s:
            return actions
        return [*(each for each in actions if not isinstance(each, plan.Start)), plan.Wait(self._starts_from_s)]

    async def _apply(self, action: plan.Action) -> None:
        match action:
            case plan.Start(assigned):
                before = self._refusals.get(assigned.replica_uid)
                if before is not None and not before.is_node_wide:
                    del self._refusals[assigned.replica_uid]
                engine = self._engines.get(assigned.replica_uid) or self._add(assigned)
                engine.assigned = assigned
                self._lives.start(engine, "" if self.applied is None else self.applied.cluster_id)
            case plan.Stop(uid, grace_s, hands_over):
                self._engines[uid].stop(grace_s, hands_over=hands_over)
                self._lives.stop(self._engines[uid])
            case plan.MarkOrphan(uid):
                self._engines[uid].mark_orphan(True)
            case plan.Keep(uid):
                self._engines[uid].mark_orphan(False)
            case plan.Forget(uid):
                bundle = self._engines.pop(uid).bundle
                if bundle is not None:
                    await asyncio.to_thread(self._bundles.remove, bundle)
                self._changed()
            case plan.Refuse(assigned):
                log.warning("replica refused", replica=assigned.replica, reason=action.message)
                self._refusals[assigned.replica_uid] = action
                self._changed()

    async def _adopt(self, bundle: Bundle) -> None:
        """Takes over what the agent before left: an engine that runs, or what is remembered of one."""
        try:
            found = recover(self._how, bundle)
        except (OSError, ValueError) as error:
            log.error("bundle cannot be read: its engine is ended", replica_uid=bundle.replica_uid, error=str(error))
            await discard(self._how, bundle)
            await asyncio.to_thread(self._bundles.remove, bundle)
            return
        engine = self._add(assigned_in(found.spec))
        engine.restore(bundle, found.record)
        if found.process is not None:
            log.info("engine adopted", replica=found.spec.replica, pid=found.process.identity.pid)
            self._lives.adopt(engine, Started(bundle, found.spec, found.key, found.process))
        elif found.lost is not None:
            await end_session(found.lost, self._timing.term_grace_s)
            if not (found.record.is_stopping or found.record.is_dead):
                engine.die(Exit(), "the engine ended while no agent looked after it")
            engine.vanish()

    def _add(self, assigned: Assigned) -> Engine:
        engine = self._engines[assigned.replica_uid] = Engine(assigned, self._clock, self._changed)
        return engine

    def _gpus(self) -> Sequence[Reading]:
        sample = self._samples.get()
        return () if sample is None else sample.gpus

    def _changed(self) -> None:
        started = {uid for uid, each in self._engines.items() if each.state is not State.PREPARING or each.is_fetching}
        self._refusals = {uid: each for uid, each in self._refusals.items() if uid not in started}
        self._publish()
        self._hint.set()
        self._on_change()

    def _publish(self) -> None:
        engines = self._engines.values()
        self._occupants.set(tuple(each.occupant() for each in engines if each.state is not State.STOPPED))
