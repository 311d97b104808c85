"""What every kind of GPU promises to the sampler: of a script, of a fake driver, of a real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from nodeagent.gpus.driver import Driver
from nodeagent.gpus.nvml import NvmlGpus
from nodeagent.gpus.sampler import Gpus
from nodeagent.gpus.script import Script, parse
from nodeagent.gpus.simulated import SimulatedGpus
from nodeagent.model import LinkKind, Occupant, Reading
from tests.support.fake_nvml import GIB, FakeGpu, FakeNvml, gpus_of

SCRIPT = """
{"gpus": 3, "total_memory_bytes": "24GiB", "nvlink": [[0, 2]], "set": {"driver_memory_bytes": "1GiB"}}
{"at_s": 0, "gpu": 0, "processes": [{"pid": 1, "name": "init", "used_memory_bytes": "1GiB"}]}
{"at_s": 0, "gpu": 1, "set": {"utilization_fraction": 1.0, "memory_utilization_fraction": 0.5}}
"""

KINDS = [
    pytest.param(lambda: SimulatedGpus("a", Script(2, 24 * GIB)), id="simulated"),
    pytest.param(lambda: SimulatedGpus("a", parse(SCRIPT)), id="scripted"),
    pytest.param(
        lambda: gpus_of(
            FakeNvml(
                FakeGpu("GPU-a", processes={1: GIB}, nvlink=frozenset({"GPU-b"})),
                FakeGpu("GPU-b", utilization=100, nvlink=frozenset({"GPU-a"})),
            )
        ),
        id="fake nvml",
    ),
    pytest.param(lambda: NvmlGpus(Driver()), id="nvml", marks=pytest.mark.gpu),
]


@pytest.fixture(params=KINDS)
def gpus(request: pytest.FixtureRequest) -> Gpus:
    """GPUs of one kind, at least one."""
    make: Callable[[], Gpus] = request.param
    return make()


def readings_of(gpus: Gpus, *occupants: Occupant) -> Sequence[Reading]:
    readings = gpus.sample(occupants)
    assert readings
    return readings


def test_every_gpu_has_a_uuid_of_its_own_and_comes_in_the_order_of_indexes(gpus: Gpus) -> None:
    readings = readings_of(gpus)
    assert len({each.uuid for each in readings}) == len(readings)
    assert [each.index for each in readings] == list(range(len(readings)))


def test_a_gpu_stays_who_it_is(gpus: Gpus) -> None:
    first, second = readings_of(gpus), readings_of(gpus)
    assert [(each.uuid, each.product_name, each.total_bytes) for each in first] == [
        (each.uuid, each.product_name, each.total_bytes) for each in second
    ]


def test_memory_adds_up(gpus: Gpus) -> None:
    for each in readings_of(gpus):
        assert each.failure == ""
        assert 0 <= each.free_bytes <= each.total_bytes
        assert each.used_bytes + each.free_bytes == each.total_bytes
        assert 0 <= each.driver_bytes <= each.foreign_bytes <= each.used_bytes


def test_what_is_told_is_within_its_range(gpus: Gpus) -> None:
    for each in readings_of(gpus):
        for fraction in (each.utilization_fraction, each.memory_utilization_fraction):
            assert fraction is None or 0 <= fraction <= 1
        amounts = (each.power_watts, each.power_limit_watts, each.sm_clock_mhz, each.memory_clock_mhz)
        assert all(amount is None or amount >= 0 for amount in amounts)
        clocks = (each.sm_clock_mhz, each.max_sm_clock_mhz)
        assert None in clocks or each.sm_clock_mhz <= each.max_sm_clock_mhz  # type: ignore[operator]


def test_processes_come_the_largest_first_and_each_once(gpus: Gpus) -> None:
    for each in readings_of(gpus):
        sizes = [process.used_bytes or 0 for process in each.processes]
        assert sizes == sorted(sizes, reverse=True)
        assert len({process.pid for process in each.processes}) == len(sizes)
        assert all(process.replica == "" for process in each.processes)


def test_links_are_the_same_from_both_ends_and_islands_are_joined_by_nvlink(gpus: Gpus) -> None:
    readings = {each.index: each for each in readings_of(gpus)}
    kinds = {(index, link.peer_index): link.kind for index, each in readings.items() for link in each.links}
    assert all(kinds[peer, index] is kind and index != peer for (index, peer), kind in kinds.items())
    for index, each in readings.items():
        assert (each.nvlink_island is not None) == any(link.kind is LinkKind.NVLINK for link in each.links)
        mates = [peer for peer, other in readings.items() if other.nvlink_island == each.nvlink_island is not None]
        assert all(kinds[index, peer] is LinkKind.NVLINK for peer in mates if peer != index)


def test_memory_of_a_loaded_engine_is_not_foreign(gpus: Gpus) -> None:
    first = readings_of(gpus)[0]
    occupant = Occupant("r-1", (first.uuid,), first.used_bytes + GIB, pid=os.getpid(), is_loaded=True)
    again = readings_of(gpus, occupant)[0]
    assert again.foreign_bytes <= first.foreign_bytes


def test_an_engine_on_one_gpu_is_not_seen_on_another(gpus: Gpus) -> None:
    readings = readings_of(gpus, Occupant("r-1", (readings_of(gpus)[0].uuid,), GIB, is_loaded=True))
    assert all("r-1" not in each.measured_bytes for each in readings[1:])
