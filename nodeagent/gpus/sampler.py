"""Samples GPUs and host at a steady pace, and goes on when the driver hangs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from nodeagent.aside import aside
from nodeagent.model import HostReading, Occupant, Reading, Sample, unknown_gpu
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Usage
from roundhouse.kit.latest import Latest

log = structlog.get_logger()

MEAN_OVER_S = 10.0
HANG_S = 5.0  # NVML answers in milliseconds; a driver that takes this long will not do any work either
FIRST_SAMPLE_S = 15.0  # waking all GPUs of a machine without persistence mode takes seconds


class Gpus(Protocol):
    """The GPUs of a node."""

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns a reading of each GPU, by index, with our engines' memory told apart. May block."""


class Host(Protocol):
    """The machine around them."""

    def read(self) -> HostReading:
        """Returns what is so now. Does not block."""


class NoGpus:
    """A node that computes on its processors."""

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:  # noqa: ARG002 - nobody is on no GPU
        """Returns nothing."""
        return ()


class Sampler:
    """Reads `occupants`, writes `samples`."""

    def __init__(
        self,
        gpus: Gpus,
        host: Host,
        occupants: Latest[tuple[Occupant, ...]],
        samples: Latest[Sample | None],
        *,
        period_s: float,
        clock: Clock,
    ) -> None:
        self._gpus, self._host = gpus, host
        self._occupants, self._samples = occupants, samples
        self._period_s, self._clock = period_s, clock
        self._asked: asyncio.Future[Sequence[Reading]] | None = None
        self._asked_s = self._asked_time_s = 0.0
        self._readings: tuple[Reading, ...] = ()
        self._readings_time_s = 0.0
        self._means: dict[str, Mean] = {}

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
            self._fail(f"nvml has not answered for {silence_s:.0f} s")
        host = self._host.read()
        host = replace(host, cpu_fraction=self._mean("host").add(host.cpu_fraction, self._clock.monotonic()))
        self._samples.set(Sample(self._clock.now(), host, self._readings, self._readings_time_s))

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
            self._readings = self._readings or (unknown_gpu(0, ""),)  # who has no GPUs cannot fail to read them
            self._fail(f"sampling failed: {error!r}")
            return
        self._readings = tuple(self._averaged(each) for each in asked.result())
        self._readings_time_s = self._asked_time_s

    def _fail(self, message: str) -> None:
        self._readings = tuple(replace(each, failure=message) for each in self._readings)

    def _averaged(self, reading: Reading) -> Reading:
        mean, measured = self._mean(reading.uuid), reading.utilization_fraction
        if reading.failure or measured is None:
            return replace(reading, mean_utilization_fraction=mean.value)
        return replace(reading, mean_utilization_fraction=mean.add(measured, self._clock.monotonic()))

    def _mean(self, name: str) -> Mean:
        return self._means.setdefault(name, Mean(MEAN_OVER_S))


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
