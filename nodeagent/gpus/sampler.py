"""Samples GPUs and host at a steady pace, and goes on when the driver hangs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from nodeagent.aside import aside
from nodeagent.model import Failure, HostReading, Measured, Occupant, Reading, Sample, unknown_gpu
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Usage
from roundhouse.kit.latest import Latest

log = structlog.get_logger()

MEAN_OVER_S = 10.0
HANG_S = 5.0  # NVML answers in milliseconds; a driver that takes this long will not do any work either
FIRST_SAMPLE_S = 15.0  # waking all GPUs of a machine without persistence mode takes seconds


class Gpus(Protocol):
    """The GPUs of a node."""

    @property
    def driver_version(self) -> str:
        """Returns the version of their driver; empty if there is none. Does not block."""

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns a reading of each GPU, by index, with our engines' memory told apart. May block."""


class Host(Protocol):
    """The machine around them."""

    def read(self, occupants: Sequence[Occupant]) -> HostReading:
        """Returns what is so now, with the memory of our engines that compute here. Does not block."""


class Sampler:
    """Reads `occupants`, writes `samples`, and calls `on_sample` after each."""

    def __init__(
        self,
        gpus: Gpus,
        host: Host,
        occupants: Latest[tuple[Occupant, ...]],
        samples: Latest[Sample | None],
        *,
        period_s: float,
        clock: Clock,
        on_sample: Callable[[], None] = lambda: None,
    ) -> None:
        self._gpus, self._host, self._on_sample = gpus, host, on_sample
        self._occupants, self._samples = occupants, samples
        self._period_s, self._clock = period_s, clock
        self._asked: asyncio.Future[Sequence[Reading]] | None = None
        self._asked_s = self._asked_time_s = 0.0
        self._readings: tuple[Reading, ...] = ()
        self._readings_time_s = 0.0
        self._means: dict[str, Mean] = {}
        self._states: dict[str, tuple[Failure | None, float]] = {}  # by UUID: why it cannot be used, and since when
        self._peaks = Peaks()

    async def first(self, timeout_s: float = FIRST_SAMPLE_S) -> None:
        """Takes the first sample; raises Usage if the driver hangs, for then nobody knows what this node is."""
        asked = self._ask()
        await asyncio.wait({asked}, timeout=timeout_s)
        if not asked.done():
            raise Usage(f"nvml has not answered for {timeout_s:g} s: mend the driver, or start with --simulate-gpus")
        await self.take()

    async def run(self) -> None:
        """Samples until cancelled."""
        while True:
            start_s = self._clock.monotonic()
            await self.take()
            await asyncio.sleep(max(0.0, self._period_s - (self._clock.monotonic() - start_s)))

    async def take(self) -> None:
        """Publishes a sample within a period; its GPUs are the last ones read, or failed, while the driver hangs."""
        asked = self._ask()
        await asyncio.wait({asked}, timeout=self._period_s)
        if asked.done():
            self._asked = None
            self._take_readings(asked)
        elif (silence_s := self._clock.monotonic() - self._asked_s) > HANG_S:
            self._fail(Failure.DRIVER_HANGS, f"nvml has not answered for {silence_s:.0f} s")
        self._publish()

    def _publish(self) -> None:
        occupants, time_s = self._occupants.get(), self._clock.now()
        readings = self._readings = tuple(self._dated(each, time_s) for each in self._readings)
        real = {each.uuid for each in readings if not each.is_simulated}
        host = self._host.read([each for each in occupants if real.isdisjoint(each.gpu_uuids)])
        mean = self._mean("host").add(host.cpu_fraction, self._clock.monotonic())
        host = replace(host, mean_cpu_fraction=mean)
        engines = self._peaks.add(occupants, readings, host)
        version = self._gpus.driver_version
        self._samples.set(Sample(time_s, host, readings, self._readings_time_s, version, engines))
        self._on_sample()

    def _ask(self) -> asyncio.Future[Sequence[Reading]]:
        if self._asked is None:
            occupants = self._occupants.get()
            self._asked = asyncio.ensure_future(aside(lambda: self._gpus.sample(occupants), "gpu sampler"))
            self._asked_s, self._asked_time_s = self._clock.monotonic(), self._clock.now()
        return self._asked

    def _take_readings(self, asked: asyncio.Future[Sequence[Reading]]) -> None:
        error = asked.exception()
        if error is not None:
            log.error("gpus cannot be sampled", exc_info=error)
            if not self._readings:  # a node whose GPUs cannot be read is no CPU node
                self._readings = (unknown_gpu(0, Failure.DRIVER_ERROR, ""),)
            self._fail(Failure.DRIVER_ERROR, f"sampling failed: {error!r}")
            return
        self._readings = tuple(self._averaged(each) for each in asked.result())
        self._readings_time_s = self._asked_time_s

    def _fail(self, kind: Failure, words: str) -> None:
        self._readings = tuple(each.failed(kind, words) for each in self._readings)

    def _averaged(self, reading: Reading) -> Reading:
        return replace(
            reading,
            mean_utilization_fraction=self._average(reading.uuid, reading.utilization_fraction),
            mean_memory_utilization_fraction=self._average(
                f"memory of {reading.uuid}", reading.memory_utilization_fraction
            ),
        )

    def _average(self, name: str, measured: float | None) -> float | None:
        mean = self._mean(name)
        return mean.value if measured is None else mean.add(measured, self._clock.monotonic())

    def _mean(self, name: str) -> Mean:
        return self._means.setdefault(name, Mean(MEAN_OVER_S))

    def _dated(self, reading: Reading, time_s: float) -> Reading:
        kind = reading.failure_kind if reading.failure else None
        before = self._states.get(reading.uuid)
        if before is None or before[0] is not kind:
            self._states[reading.uuid] = (kind, time_s)
            if kind is not None:
                log.warning("gpu cannot be used", gpu=reading.uuid, reason=reading.failure)
            elif before is not None:
                log.info("gpu can be used again", gpu=reading.uuid)
        return replace(reading, state_time_s=self._states[reading.uuid][1])


class Peaks:
    """Remembers the most memory that each engine has used in its present life."""

    def __init__(self) -> None:
        self._peaks: Mapping[str, tuple[int, int]] = {}  # pid and bytes, by replica uid

    def add(self, occupants: Sequence[Occupant], gpus: Sequence[Reading], host: HostReading) -> Mapping[str, Measured]:
        """Takes in a measurement; returns what each engine uses, and the most that it has."""
        peaks: dict[str, tuple[int, int]] = {}
        engines: dict[str, Measured] = {}
        for each in occupants:
            uid = each.replica_uid
            on_gpus = (gpu.measured_bytes.get(uid, 0) for gpu in gpus)
            used = max(on_gpus, default=0) if each.gpu_uuids else host.measured_bytes.get(uid, 0)
            pid, peak = self._peaks.get(uid, (each.pid, 0))
            # Without a process, what is left of its life still counts as that.
            peaks[uid] = (each.pid or pid, max(used, 0 if each.pid not in (0, pid) else peak))
            engines[uid] = Measured(used, peaks[uid][1])
        self._peaks = peaks
        return engines


class Mean:
    """An average that forgets: what was measured `over_s` seconds ago weighs 1/e of what is measured now."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._time_s = 0.0
        self.value: float | None = None

    def add(self, measured: float, time_s: float) -> float:
        """Takes in a measurement and returns the average."""
        if self.value is None:
            self.value = measured
        else:
            self.value += (measured - self.value) * -math.expm1(-(time_s - self._time_s) / self._over_s)
        self._time_s = time_s
        return self.value
