"""All that this node knows of one replica, and what it reports of it. Changed by the supervisor alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace

import structlog

from nodeagent.bundle import Bundle, Record
from nodeagent.hearing import Status
from nodeagent.hiding import Hiding
from nodeagent.launch import is_same
from nodeagent.life import Life
from nodeagent.model import Assigned, Death, Exit, Known, Measured, Occupant, State
from nodeagent.plan import early_deaths_after, is_crash_loop, restart_delay_s
from nodeagent.progress import in_stage, with_bytes
from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit.clock import Clock
from roundhouse.kit.times import to_timestamp
from roundhouse.v1 import deployment_pb2

log = structlog.get_logger()


class Engine:
    """A replica on this node: what is wanted, its state, its present life if it has one, its past."""

    def __init__(self, assigned: Assigned, clock: Clock, on_change: Callable[[], None]) -> None:
        self.assigned = assigned
        self.bundle: Bundle | None = None
        self.life: Life | None = None
        self.stop_grace_s: float | None = None
        self.hands_over = False  # what it runs beyond that goes on at other engines
        self.is_fetching = False  # a model, or packages
        self.settled = asyncio.Event()  # the engine has said something in this life, or there is none
        self._clock, self._on_change = clock, on_change
        self._record = Record()
        self._status = Status(State.PREPARING, "")
        self._state_time_s = clock.now()
        self._next_start_s: float | None = None
        self._orphan_since_s: float | None = None
        self._has_remains = False

    @property
    def state(self) -> State:
        """Returns what the replica is doing."""
        return self._status.state

    @property
    def has_served(self) -> bool:
        """Tells whether the life that is remembered has been READY."""
        return self._record.ready_time_s is not None

    def restore(self, bundle: Bundle, record: Record) -> None:
        """Takes over what the agent before remembered; there is no life (yet)."""
        self.bundle, self._record = bundle, record
        self._orphan_since_s = self._from_wall(record.orphan_time_s)
        death = record.last_death
        if record.is_stopping:
            self._set(Status(State.STOPPED, "stopped"))
        else:
            self._set(Status(State.FAILED, "not running" if death is None else death.reason))
            since_s = None if death is None else self._from_wall(death.time_s)
            self._next_start_s = None if since_s is None else since_s + restart_delay_s(record.early_deaths)
        self.settled.set()

    def assign(self, assigned: Assigned) -> None:
        """Takes over what is wanted now. Its GPUs and its memory stay those of its life, which cannot move."""
        mine = self.assigned
        self.assigned = replace(assigned, gpu_uuids=mine.gpu_uuids, reserved_bytes=mine.reserved_bytes)

    def prepare(self) -> Record:
        """Notes that a new life is about to start; returns what it inherits."""
        if self.state is State.STOPPED:
            self._record = Record()
        elif self._record.last_death is not None:
            self._record = replace(self._record, restart_count=self._record.restart_count + 1)
        self._record = replace(self._record, process=None, is_dead=False, ready_time_s=None, is_stopping=False)
        self.stop_grace_s = self._next_start_s = None
        progress = in_stage(deployment_pb2.LAUNCH_STAGE_LOCATING_MODEL, None, self._clock.now())
        self._set(Status(State.PREPARING, "the files of its model are looked for", progress=progress))
        return self._record

    def fetch(self, repository: str, done_bytes: int, total_bytes: int) -> None:
        """Notes how much of a model has come to this node."""
        progress = in_stage(deployment_pb2.LAUNCH_STAGE_FETCHING_MODEL, self._status.progress, self._clock.now())
        self._gather(f"fetching {repository} from the hub", with_bytes(progress, done_bytes, total_bytes))

    def build(self, line: str) -> None:
        """Notes how far the environment is, that is, what was said of it last."""
        stage = deployment_pb2.LAUNCH_STAGE_BUILDING_ENVIRONMENT
        progress = in_stage(stage, self._status.progress, self._clock.now())
        self._gather(f"building the environment: {line}", progress)

    def begin(self, life: Life) -> None:
        """Notes that a process runs, just started or adopted."""
        self.is_fetching = False
        self.life, self.bundle = life, life.bundle
        self._record = replace(self._record, process=life.identity)
        self.settled.clear()
        self._set(life.status)

    def hear(self, status: Status) -> None:
        """Takes in what the engine says of itself."""
        # One that is adopted has been READY all along; one that has already said something in this life comes back.
        comes_back = self.settled.is_set() and self.state is State.STARTING
        if status.address:
            self.settled.set()
        if self.stop_grace_s is not None:
            status = replace(status, state=State.DRAINING)
        if status.state is State.READY:
            self._note_ready(is_news=comes_back or not self.has_served)
        self._set(status)

    def stop(self, grace_s: float, *, hands_over: bool = False) -> None:
        """Notes that it is being stopped; with nothing left to stop, that it has stopped."""
        self.stop_grace_s, self.hands_over = grace_s, hands_over
        self._remember(replace(self._record, is_stopping=True))
        is_down = self.state is State.FAILED and not self._has_remains
        self._set(
            Status(State.STOPPED, "stopped")
            if is_down
            else replace(self._status, state=State.DRAINING, message="the engine is told to drain")
        )

    def die(self, exit_: Exit, fault: str) -> None:
        """Notes the end of a life; unless it was wanted, decides when the next one starts."""
        self.life, self._has_remains, self.is_fetching = None, True, False
        self.settled.set()
        if self.stop_grace_s is not None:
            self._set(Status(State.DRAINING, "the process has ended; what it used is given back"))
            return
        now_s = self._clock.now()
        lines = () if self.bundle is None else _last_words(self.bundle)
        death = Death(exit_, lines, now_s, fault or _sentence(exit_))
        count = early_deaths_after(self._record.early_deaths, self._ready_for_s())
        # An earlier agent may have been stopping it. This one was not, so it is a death to the next agent as well.
        ended = replace(self._record, is_dead=True, is_stopping=False, ready_time_s=None)
        self._remember(replace(ended, early_deaths=count, last_death=death))
        delay_s = restart_delay_s(count)
        self._next_start_s = self._clock.monotonic() + delay_s
        log.warning("engine died", replica=self.assigned.replica, reason=death.reason, next_start_s=delay_s)
        self._set(Status(State.FAILED, death.reason))

    def vanish(self) -> None:
        """Notes that no process and no memory of the last life is left."""
        self._has_remains = False
        self._remember(replace(self._record, process=None, is_dead=False))
        if self.stop_grace_s is not None:
            self._set(Status(State.STOPPED, "stopped"))
        self._on_change()

    def mark_orphan(self, is_orphan: bool) -> None:
        """Notes whether the assignment fails to mention it."""
        self._orphan_since_s = self._clock.monotonic() if is_orphan else None
        self._remember(replace(self._record, orphan_time_s=self._clock.now() if is_orphan else None))
        self._on_change()

    def known(self) -> Known:
        """Returns what the decision needs to know."""
        return Known(
            self.assigned.replica_uid,
            self.state,
            self.assigned.gpu_uuids,
            self.assigned.reserved_bytes,
            next_start_s=self._next_start_s,
            orphan_since_s=self._orphan_since_s,
            stop_grace_s=self.stop_grace_s,
            hands_over=self.hands_over,
            has_remains=self._has_remains,
        )

    def occupant(self) -> Occupant:
        """Returns what the GPUs need to know."""
        return Occupant(
            self.assigned.replica_uid,
            self.assigned.gpu_uuids,
            self.assigned.reserved_bytes,
            pid=0 if self.life is None else self.life.identity.pid,
            is_loaded=self.state is State.DRAINING or (self.life is not None and self.has_served),
            busy_fraction=0.0 if self._status.load is None else self._status.load.busy_fraction,
            replica=self.assigned.replica,
        )

    def report(self, measured: Measured) -> agent_service_pb2.EngineReport:
        """Returns what the control plane needs to know."""
        life, death = self.life, self._record.last_death
        report = agent_service_pb2.EngineReport(
            replica=self.assigned.replica,
            replica_uid=self.assigned.replica_uid,
            placement_epoch=self.assigned.placement_epoch,
            deployment_generation=self._generation(),
            state=f"REPLICA_STATE_{self.state.name}",
            state_time=to_timestamp(self._state_time_s),
            message=self._status.message,
            restart_count=self._record.restart_count,
            gpu_uuids=self.assigned.gpu_uuids,
            reserved_memory_bytes=self.assigned.reserved_bytes,
            measured_memory_bytes=measured.used_bytes,
            peak_memory_bytes=measured.peak_bytes,
            load=self._status.load,
            fingerprint=self._status.fingerprint,
            is_orphan=self._orphan_since_s is not None,
            is_crash_loop=is_crash_loop(self._record.early_deaths, self._ready_for_s()),
            package_versions=self._status.package_versions,
            progress=self._status.progress if self.state in (State.PREPARING, State.STARTING) else None,
        )
        if life is not None:
            report.engine_uuid, report.engine_key, report.pid = life.spec.engine_uuid, life.key, life.identity.pid
            report.address = self._status.address
        if death is not None:
            report.last_exit.CopyFrom(_exit_to_wire(death))
        if self.state is State.FAILED and self._next_start_s is not None:
            until_s = self._next_start_s - self._clock.monotonic()
            report.next_start_time.CopyFrom(to_timestamp(self._clock.now() + until_s))
        return report

    def _gather(self, message: str, progress: deployment_pb2.LaunchProgress) -> None:
        self.is_fetching = True
        self._set(replace(self._status, message=message, progress=progress))

    def _generation(self) -> int:
        """Returns the newest generation that the present life fulfils.

        A change that leaves the specification alone, of the replica count say, is fulfilled as it is.
        """
        life = self.life
        if life is None or is_same(life.spec.spec, self.assigned.spec):
            return self.assigned.deployment_generation
        return life.spec.deployment_generation

    def _ready_for_s(self) -> float | None:
        since_s = self._record.ready_time_s
        # One that has fallen silent, or drains, has not been READY since it does.
        until_s = self._clock.now() if self.state is State.READY else self._state_time_s
        return None if since_s is None else until_s - since_s

    def _from_wall(self, time_s: float | None) -> float | None:
        return None if time_s is None else self._clock.monotonic() - max(0.0, self._clock.now() - time_s)

    def _note_ready(self, *, is_news: bool) -> None:
        ready_time_s = self._clock.now() if is_news else self._record.ready_time_s
        # It serves and nobody stops it: if the agent before was about to, that is withdrawn.
        fresh = replace(self._record, ready_time_s=ready_time_s, is_stopping=False)
        if fresh != self._record:
            self._remember(fresh)

    def _set(self, status: Status) -> None:
        has_changed = status.state is not self._status.state
        if has_changed:
            became_ready_s = self._record.ready_time_s if status.state is State.READY else None
            self._state_time_s = became_ready_s or self._clock.now()
        has_changed = has_changed or _news(status) != _news(self._status)
        self._status = status
        if has_changed:
            self._on_change()

    def _remember(self, record: Record) -> None:
        self._record = record
        if self.bundle is not None:
            try:
                self.bundle.remember(record)
            except OSError as error:
                log.error("the next agent will not know this", replica=self.assigned.replica, error=str(error))


def _news(status: Status) -> tuple[object, ...]:
    """Returns what is reported at once when it changes; the rest waits for the next report."""
    return status.message, status.address, status.progress


def _last_words(bundle: Bundle) -> tuple[str, ...]:
    """Returns the end of the error stream without the secrets of the life that wrote it, as far as they are known."""
    try:
        return bundle.stderr_tail(Hiding(bundle.spec().spec).hide)
    except (OSError, ValueError) as error:
        log.error("what an engine wrote is not shown", replica_uid=bundle.replica_uid, error=str(error))
        return ()


def _sentence(exit_: Exit) -> str:
    if exit_.signal is not None:
        names = {each.value: each.name for each in signal.Signals}
        return f"the engine was killed by {names.get(exit_.signal, f'signal {exit_.signal}')}"
    if exit_.code is not None:
        return f"the engine ended with exit status {exit_.code}"
    return "the engine ended; how could not be learned"


def _exit_to_wire(death: Death) -> deployment_pb2.EngineExit:
    return deployment_pb2.EngineExit(
        exit_code=death.exit.code,
        signal=death.exit.signal,
        stderr_lines=death.stderr_lines,
        exit_time=to_timestamp(death.time_s),
    )
