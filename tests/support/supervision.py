"""A supervisor of real engine processes, with everything around it in a test's hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import structlog

from nodeagent.assignment import AssignmentFile
from nodeagent.bundle import Bundle, Bundles
from nodeagent.gpus.sampler import Sampler
from nodeagent.launch import Launch
from nodeagent.model import HostReading, Occupant, Reading, Sample, Timing
from nodeagent.process import end_session, find, session
from nodeagent.supervisor import Supervisor
from roundhouse.internal.v1 import agent_service_pb2 as wire
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.latest import Latest
from roundhouse.kit.times import to_duration
from roundhouse.v1 import deployment_pb2

STAND_IN = Path(__file__).parent / "stand_in"
PATIENCE_S = 60.0  # two cores, shared
READY = deployment_pb2.REPLICA_STATE_READY
STARTING = deployment_pb2.REPLICA_STATE_STARTING
DRAINING = deployment_pb2.REPLICA_STATE_DRAINING
STOPPED = deployment_pb2.REPLICA_STATE_STOPPED
FAILED = deployment_pb2.REPLICA_STATE_FAILED
Report = wire.EngineReport


def wanted(
    uid: str = "r-1", script: str = "", *, stop_grace_s: float | None = None, gpu_uuids: Sequence[str] = ()
) -> wire.EngineAssignment:
    """Returns a replica whose engine plays `script`, to be stopped if a grace is given."""
    env = [deployment_pb2.EnvVar(name="SCRIPT", value=script)]
    is_running = stop_grace_s is None
    return wire.EngineAssignment(
        replica=f"deployments/chat/replicas/{uid}",
        replica_uid=uid,
        placement_epoch=1,
        deployment_generation=1,
        desired_state=wire.DESIRED_STATE_RUNNING if is_running else wire.DESIRED_STATE_STOPPED,
        spec=engine_spec_pb2.EngineSpec(deployment="chat", engine="torch", env=env),
        gpu_uuids=gpu_uuids,
        reserved_memory_bytes=1024,
        drain_grace=to_duration(stop_grace_s or 0.0),
    )


@contextlib.contextmanager
def logged(message: str) -> Iterator[asyncio.Event]:
    """Yields what is set once this is logged in the block, by any thread. Nothing is printed there."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def see(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if entry["event"] == message:
            loop.call_soon_threadsafe(event.set)
        raise structlog.DropEvent  # to print a traceback in colours, files are opened

    processors = structlog.get_config()["processors"]
    processors.insert(0, see)
    try:
        yield event
    finally:
        processors.remove(see)


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """Lets this process open nothing in the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - the names, no paths
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)


class Node:
    """A state directory, and the supervisor of it while there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generation = 0
        self.how = Launch(
            os.environ, (sys.executable, str(STAND_IN / "engines/__main__.py")), needs=("google.protobuf",)
        )
        self.timing = Timing(watch_period_s=0.1, term_grace_s=1.0, ask_first_s=0.0)
        self.readings: tuple[Reading, ...] = ()
        self.driver_version = ""
        self.samples: Latest[Sample | None] = Latest(None)
        self.occupants: Latest[tuple[Occupant, ...]] = Latest(())
        self._changed = asyncio.Event()
        self.supervisor: Supervisor
        self._running: asyncio.Task[None]

    @contextlib.asynccontextmanager
    async def supervised(self) -> AsyncIterator[Supervisor]:
        """Runs a supervisor for the block; engines run on after it."""
        self.supervisor = Supervisor(
            self.how,
            Bundles(self.folder / "engines"),
            AssignmentFile(self.folder / "assignment.json"),
            self.occupants,
            self.samples,
            timing=self.timing,
            clock=SystemClock(),
            on_change=self._changed.set,
        )
        sampler = Sampler(self, self, self.occupants, self.samples, period_s=0.05, clock=SystemClock())
        await sampler.first()
        async with self.supervisor:
            sampling = asyncio.create_task(sampler.run())
            self._running = asyncio.create_task(self.supervisor.run())
            try:
                yield self.supervisor
            finally:
                self.rest()
                sampling.cancel()
                await asyncio.gather(self._running, sampling, return_exceptions=True)

    def rest(self) -> None:
        """Lets nothing more be started or stopped."""
        self._running.cancel()

    async def assign(self, *replicas: wire.EngineAssignment, term: int = 1, cluster_id: str = "cluster") -> bool:
        """Sends the next assignment; tells whether it was taken."""
        self.generation += 1
        order = wire.Order(cluster_id=cluster_id, term=term, generation=self.generation)
        return await self.supervisor.take(wire.JoinResponse(protocol_version=1, order=order, engines=replicas))

    def report(self, uid: str = "r-1") -> Report | None:
        """Returns what is reported of a replica now; None if it is not known."""
        return next((each for each in self.supervisor.reports() if each.replica_uid == uid), None)

    async def until(self, holds: Callable[[Report], object], uid: str = "r-1") -> Report:
        """Waits until something holds of the report of a replica."""
        await self.until_true(lambda: (report := self.report(uid)) is not None and holds(report))
        report = self.report(uid)
        assert report is not None
        return report

    async def until_state(self, state: deployment_pb2.ReplicaState, uid: str = "r-1") -> Report:
        """Waits until a replica is in a state."""
        return await self.until(lambda report: report.state == state, uid)

    async def until_true(self, holds: Callable[[], object]) -> None:
        """Waits until something holds, looking at every change."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def bundle(self, uid: str = "r-1") -> Bundle:
        """Returns the directory of a replica."""
        return Bundle(self.folder / "engines" / uid)

    async def gpus(self, *readings: Reading) -> None:
        """Lets the node have these GPUs from now on; returns when it knows."""
        self.readings = readings
        async with asyncio.timeout(PATIENCE_S):
            async for sample in self.samples.watch():
                if sample is not None and [each.uuid for each in sample.gpus] == [each.uuid for each in readings]:
                    return

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns what the GPUs are to say, whoever is on them."""
        return self.readings

    def read(self, occupants: Sequence[Occupant]) -> HostReading:
        """Returns what the host says."""
        return HostReading(cpu_count=2, cpu_fraction=0.0, total_bytes=0, available_bytes=0)

    async def end(self) -> None:
        """Ends every engine that is left."""
        for path in (self.folder / "engines").glob("*"):
            left = find(("--bundle", str(path)))
            if left is not None:
                os.kill(left.pid, signal.SIGCONT)
                await end_session(left, grace_s=0)
            with contextlib.suppress(OSError, ValueError):
                record = Bundle(path).record()
                if record.process is not None and session(record.process):
                    await end_session(record.process, grace_s=0)
