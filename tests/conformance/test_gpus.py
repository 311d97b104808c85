"""What every kind of GPU promises to the sampler: simulated, of a fake driver, of a real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from nodeagent.gpus.nvml import open_nvml
from nodeagent.gpus.sampler import Gpus
from nodeagent.gpus.simulated import SimulatedGpus
from nodeagent.model import Occupant, Reading
from tests.support.fake_nvml import GIB, FakeGpu, FakeNvml


def fake_driver() -> Gpus:
    gpus = open_nvml(FakeNvml(FakeGpu("GPU-a", processes={1: GIB}), FakeGpu("GPU-b", utilization=100)))
    assert gpus is not None
    return gpus


def real_driver() -> Gpus:
    gpus = open_nvml()
    assert gpus is not None
    return gpus


KINDS = [
    pytest.param(lambda: SimulatedGpus("a", 2, 24 * GIB), id="simulated"),
    pytest.param(fake_driver, id="fake nvml"),
    pytest.param(real_driver, id="nvml", marks=pytest.mark.gpu),
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
        assert 0 <= each.foreign_bytes <= each.used_bytes


def test_utilization_is_a_fraction(gpus: Gpus) -> None:
    for each in readings_of(gpus):
        assert each.utilization_fraction is None or 0 <= each.utilization_fraction <= 1


def test_memory_of_a_loaded_engine_is_not_foreign(gpus: Gpus) -> None:
    first = readings_of(gpus)[0]
    occupant = Occupant("r-1", (first.uuid,), first.used_bytes + GIB, pid=os.getpid(), is_loaded=True)
    again = readings_of(gpus, occupant)[0]
    assert again.foreign_bytes <= first.foreign_bytes


def test_an_engine_on_one_gpu_is_not_seen_on_another(gpus: Gpus) -> None:
    readings = readings_of(gpus, Occupant("r-1", (readings_of(gpus)[0].uuid,), GIB, is_loaded=True))
    assert all("r-1" not in each.measured_bytes for each in readings[1:])
