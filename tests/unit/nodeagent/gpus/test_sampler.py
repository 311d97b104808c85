"""Samples come at a steady pace, whatever the driver does."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from nodeagent.gpus.release import memory_released
from nodeagent.gpus.sampler import HANG_S, Mean, Sampler
from nodeagent.model import Failure, HostReading, Measured, Occupant, Reading, Sample
from roundhouse.kit.errors import Usage
from roundhouse.kit.latest import Latest
from tests.support.clock import FakeClock


class ScriptedGpus:
    """One GPU that says what it is told to, and hangs as long as it is told to."""

    driver_version = "595.45.04"

    def __init__(self) -> None:
        self.reading = Reading("g", 0, "", is_simulated=True, total_bytes=10, utilization_fraction=0.0)
        self.answers = threading.Event()
        self.answers.set()
        self.error: Exception | None = None
        self.call_count = 0

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        self.call_count += 1
        self.answers.wait()
        if self.error is not None:
            raise self.error
        return [self.reading]


class ScriptedHost:
    """A host that is half busy, and on which each engine uses one byte more with every look."""

    def __init__(self) -> None:
        self.cpu_fraction = 0.5
        self.used_bytes = 0

    def read(self, occupants: Sequence[Occupant]) -> HostReading:
        self.used_bytes += 1
        measured = {each.replica_uid: self.used_bytes for each in occupants}
        return HostReading(2, self.cpu_fraction, total_bytes=8, available_bytes=4, measured_bytes=measured)


class Bench:
    """A sampler with everything around it in hand."""

    def __init__(self, period_s: float) -> None:
        self.gpus, self.host, self.clock = ScriptedGpus(), ScriptedHost(), FakeClock()
        self.occupants: Latest[tuple[Occupant, ...]] = Latest(())
        self.samples: Latest[Sample | None] = Latest(None)
        self.told: list[Sample | None] = []
        self.sampler = Sampler(
            self.gpus,
            self.host,
            self.occupants,
            self.samples,
            period_s=period_s,
            clock=self.clock,
            on_sample=lambda: self.told.append(self.samples.get()),
        )

    async def first(self) -> Sample:
        await self.sampler.first()
        return self._sample()

    async def take(self) -> Sample:
        await self.sampler.take()
        return self._sample()

    def _sample(self) -> Sample:
        sample = self.samples.get()
        assert sample is not None
        return sample


@pytest.fixture
def bench() -> Bench:
    """A bench whose sampler waits for the driver."""
    return Bench(period_s=60.0)


@pytest.fixture
def hasty() -> Iterator[Bench]:
    """A bench whose sampler hardly waits; its driver answers in the end, so that no thread is left."""
    hasty = Bench(period_s=0.01)
    yield hasty
    hasty.gpus.answers.set()


async def test_a_sample_holds_gpus_host_and_time(bench: Bench) -> None:
    sample = await bench.take()
    now_s = bench.clock.now()
    reading = replace(bench.gpus.reading, mean_utilization_fraction=0.0, state_time_s=now_s)
    host = replace(ScriptedHost().read(()), mean_cpu_fraction=0.5)
    assert sample == Sample(now_s, host, (reading,), gpu_time_s=now_s, driver_version="595.45.04")
    assert bench.told == [sample], "it is told once the sample is there"


async def test_a_driver_that_hangs_fails_its_gpus_and_stops_no_sample(hasty: Bench) -> None:
    first = await hasty.first()
    hasty.gpus.answers.clear()
    hasty.clock.advance(1.0)
    second = await hasty.take()
    assert (second.gpus, second.gpu_time_s) == (first.gpus, first.gpu_time_s)
    assert second.time_s > first.time_s
    hasty.clock.advance(HANG_S + 1)
    third = await hasty.take()
    assert third.gpus[0].failure == "nvml has not answered for 6 s"
    assert third.gpus[0].failure_kind is Failure.DRIVER_HANGS
    assert hasty.gpus.call_count == 2, "a driver that hangs is not asked again meanwhile"
    hasty.gpus.answers.set()
    assert (await hasty.first()).gpus[0].failure == ""


async def test_an_error_that_nobody_expected_fails_the_gpus(bench: Bench) -> None:
    await bench.take()
    bench.gpus.error = RuntimeError("what is this")
    assert (await bench.take()).gpus[0].failure == "sampling failed: RuntimeError('what is this')"


async def test_an_error_that_nobody_expected_at_the_start_makes_no_cpu_node_of_a_machine_with_gpus(
    bench: Bench,
) -> None:
    bench.gpus.error = RuntimeError("what is this")
    [failed] = (await bench.first()).gpus
    assert (failed.uuid, failed.failure) == ("GPU-unknown-0", "sampling failed: RuntimeError('what is this')")
    bench.gpus.error = None
    assert [(each.uuid, each.failure) for each in (await bench.take()).gpus] == [("g", "")]


async def test_an_agent_does_not_start_while_the_driver_hangs(hasty: Bench) -> None:
    hasty.gpus.answers.clear()
    with pytest.raises(Usage, match=r"nvml has not answered for 0\.05 s"):
        await hasty.sampler.first(timeout_s=0.05)


async def test_utilization_is_averaged_over_ten_seconds(bench: Bench) -> None:
    await bench.take()
    bench.gpus.reading = Reading("g", 0, "", is_simulated=True, total_bytes=10, utilization_fraction=1.0)
    bench.clock.advance(10.0)
    [gpu] = (await bench.take()).gpus
    assert gpu.utilization_fraction == 1.0
    assert gpu.mean_utilization_fraction == pytest.approx(1 - 1 / math.e)


async def test_a_gpu_that_does_not_tell_its_utilization_has_no_average(bench: Bench) -> None:
    bench.gpus.reading = Reading("g", 0, "", is_simulated=False, total_bytes=10)
    [gpu] = (await bench.take()).gpus
    assert (gpu.utilization_fraction, gpu.mean_utilization_fraction) == (None, None)


async def test_the_host_and_the_memory_of_gpus_are_averaged_as_well(bench: Bench) -> None:
    reading = Reading("g", 0, "", is_simulated=False, total_bytes=10, memory_utilization_fraction=0.0)
    bench.gpus.reading = reading
    await bench.take()
    bench.gpus.reading, bench.host.cpu_fraction = replace(reading, memory_utilization_fraction=1.0), 1.0
    bench.clock.advance(10.0)
    sample = await bench.take()
    assert sample.gpus[0].mean_memory_utilization_fraction == pytest.approx(1 - 1 / math.e)
    assert sample.host.cpu_fraction == 1.0
    assert sample.host.mean_cpu_fraction == pytest.approx(1 - 0.5 / math.e)


async def test_the_time_of_a_state_is_when_it_began(bench: Bench) -> None:
    start_s = bench.clock.now()
    fine = bench.gpus.reading
    times_s = []
    for reading in (
        fine,
        fine,
        fine.failed(Failure.OFF_BUS, "lost"),
        fine.failed(Failure.OFF_BUS, "lost again"),
        fine.failed(Failure.RESET_REQUIRED, "lost"),
        fine,
    ):
        bench.gpus.reading = reading
        times_s.append((await bench.take()).gpus[0].state_time_s - start_s)
        bench.clock.advance(1.0)
    assert times_s == [0, 0, 2, 2, 4, 5]


async def test_memory_of_an_engine_is_that_on_the_fullest_of_its_gpus(bench: Bench) -> None:
    bench.gpus.reading = replace(bench.gpus.reading, measured_bytes={"r": 7, "s": 5})
    bench.occupants.set((Occupant("r", ("g",), 9, pid=1),))
    assert (await bench.take()).engines == {"r": Measured(7, 7)}
    bench.gpus.reading = replace(bench.gpus.reading, measured_bytes={"r": 3})
    assert (await bench.take()).engines == {"r": Measured(3, 7)}


async def test_memory_of_an_engine_without_gpus_is_that_in_the_host_and_its_peak_that_of_one_life(
    bench: Bench,
) -> None:
    bench.occupants.set((Occupant("r", (), 9, pid=1),))
    assert (await bench.take()).engines == {"r": Measured(1, 1)}
    assert (await bench.take()).engines == {"r": Measured(2, 2)}
    bench.host.used_bytes = 0
    assert (await bench.take()).engines == {"r": Measured(1, 2)}
    bench.host.used_bytes = -1
    bench.occupants.set((Occupant("r", (), 9),))
    assert (await bench.take()).engines == {"r": Measured(0, 2)}, "what is left of a life belongs to it"
    bench.occupants.set((Occupant("r", (), 9, pid=2),))
    assert (await bench.take()).engines == {"r": Measured(1, 1)}


async def test_the_host_is_not_asked_about_engines_that_compute_on_gpus(bench: Bench) -> None:
    bench.gpus.reading = replace(bench.gpus.reading, is_simulated=False)
    bench.occupants.set((Occupant("on gpu", ("g",), 9, pid=1), Occupant("elsewhere", ("x",), 9, pid=2)))
    assert set((await bench.take()).host.measured_bytes) == {"elsewhere"}


def test_an_average_forgets_by_time_and_not_by_count() -> None:
    often, rarely = Mean(10.0), Mean(10.0)
    for time_s in range(21):
        often.add(1.0 if time_s else 0.0, float(time_s))
    for time_s in (0, 20):
        rarely.add(1.0 if time_s else 0.0, float(time_s))
    assert often.value == pytest.approx(rarely.value)


def sample(time_s: float, **measured_bytes: int) -> Sample:
    reading = Reading("g", 0, "", is_simulated=False, total_bytes=10, measured_bytes=measured_bytes)
    return Sample(time_s, ScriptedHost().read(()), (reading,), gpu_time_s=time_s)


async def test_memory_counts_as_released_once_a_later_sample_shows_none() -> None:
    samples: Latest[Sample | None] = Latest(sample(1.0))
    assert not await memory_released(samples, "r", ["g"], since_s=1.0, within_s=0.01)
    samples.set(sample(2.0, r=5))
    assert not await memory_released(samples, "r", ["g"], since_s=1.0, within_s=0.01)
    samples.set(sample(3.0, another=5))
    assert await memory_released(samples, "r", ["g"], since_s=1.0)


async def test_without_real_gpus_there_is_nothing_to_wait_for() -> None:
    assert await memory_released(Latest(None), "r", [], since_s=1.0)
