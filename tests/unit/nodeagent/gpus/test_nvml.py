"""What is made of the answers of NVML, and of its errors."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pynvml
import pytest

from nodeagent.gpus.nvml import NvmlGpus, open_nvml
from nodeagent.model import Occupant
from tests.support.fake_nvml import GIB, FakeGpu, FakeNvml

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


def opened(*gpus: FakeGpu) -> NvmlGpus:
    found = open_nvml(FakeNvml(*gpus))
    assert found is not None
    return found


@pytest.fixture
def engine_pid() -> Iterator[int]:
    """The pid of a process that leads a session, as engines do."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def engine_with_child() -> Iterator[tuple[int, int]]:
    """The pids of a process that leads a session, and of a child of it."""
    # `read` waits until the pipe is closed, at which the shell ends its child and itself.
    script = "sleep 1000 & echo $!; read -r line; kill $!"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as shell:
        assert shell.stdout is not None
        yield shell.pid, int(shell.stdout.readline())
        shell.communicate()


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_machine_without_a_driver_has_no_gpus(code: int) -> None:
    assert open_nvml(FakeNvml(faults={"nvmlInit": code})) is None


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_driver_that_cannot_be_used_yet_has_a_failed_gpu_and_is_tried_again(function: str) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"), faults={function: pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})
    gpus = open_nvml(nvml)
    assert gpus is not None
    [failed] = gpus.sample([])
    assert (failed.uuid, failed.failure) == ("GPU-unknown-0", "RM has detected an NVML/RM version mismatch.")
    assert (failed.is_simulated, failed.total_bytes, failed.free_bytes) == (False, 0, 0)
    nvml.faults.clear()
    assert [(each.uuid, each.failure) for each in gpus.sample([])] == [("GPU-a", ""), ("GPU-b", "")]


def test_what_the_driver_keeps_is_used_and_nobody_elses_but_foreign() -> None:
    [reading] = opened(FakeGpu("GPU-a", total=80 * GIB, driver_bytes=GIB)).sample([])
    assert (reading.used_bytes, reading.free_bytes, reading.foreign_bytes) == (GIB, 79 * GIB, GIB)


def test_memory_of_an_engine_and_of_its_children_is_the_engines(engine_with_child: tuple[int, int]) -> None:
    engine, child = engine_with_child
    gpu = FakeGpu("GPU-a", driver_bytes=0, processes={engine: 2 * GIB, child: GIB, os.getpid(): 5 * GIB})
    [reading] = opened(gpu).sample([Occupant("r", ("GPU-a",), 4 * GIB, pid=engine)])
    assert reading.measured_bytes == {"r": 3 * GIB}
    assert reading.foreign_bytes == 5 * GIB


def test_memory_of_an_engine_that_ended_is_its_own_until_it_is_given_back(engine_pid: int) -> None:
    gpu = FakeGpu("GPU-a", driver_bytes=0, processes={engine_pid: GIB})
    gpus = opened(gpu)
    gpus.sample([Occupant("r", ("GPU-a",), GIB, pid=engine_pid)])
    [still] = gpus.sample([Occupant("r", ("GPU-a",), GIB)])
    assert still.measured_bytes == {"r": GIB}
    gpu.processes.clear()
    [free] = gpus.sample([Occupant("r", ("GPU-a",), GIB)])
    assert free.measured_bytes == {}
    gpu.processes[engine_pid] = GIB
    [foreign] = gpus.sample([Occupant("r", ("GPU-a",), GIB)])
    assert foreign.foreign_bytes == GIB


@pytest.mark.parametrize("processes", [{4_000_000: 6 * GIB}, {}], ids=["foreign pids", "no pids at all"])
def test_where_processes_cannot_be_told_apart_a_loaded_engine_uses_what_it_reserved(
    processes: dict[int, int | None],
) -> None:
    gpu = FakeGpu("GPU-a", driver_bytes=0 if processes else 6 * GIB, processes=processes)
    [reading] = opened(gpu).sample([Occupant("r", ("GPU-a",), 5 * GIB, pid=7, is_loaded=True)])
    assert reading.foreign_bytes == GIB


def test_memory_that_is_not_said_is_not_guessed(engine_pid: int) -> None:
    gpu = FakeGpu("GPU-a", driver_bytes=0, processes={engine_pid: None})
    [reading] = opened(gpu).sample([Occupant("r", ("GPU-a",), GIB, pid=engine_pid)])
    assert reading.measured_bytes == {}


def test_a_gpu_that_is_lost_is_failed_in_the_words_of_nvml_and_keeps_its_name() -> None:
    gpu, other = FakeGpu("GPU-a"), FakeGpu("GPU-b")
    gpus = opened(gpu, other)
    gpus.sample([])
    gpu.faults["nvmlDeviceGetHandleByIndex"] = LOST
    lost, fine = gpus.sample([])
    assert (lost.uuid, lost.failure, lost.total_bytes) == ("GPU-a", "GPU is lost", 80 * GIB)
    assert fine.failure == ""


def test_a_gpu_that_was_never_seen_is_failed_all_the_same() -> None:
    [reading] = opened(FakeGpu("GPU-a", faults={"nvmlDeviceGetMemoryInfo": LOST})).sample([])
    assert (reading.uuid, reading.failure) == ("GPU-unknown-0", "GPU is lost")


def test_a_driver_that_fails_as_a_whole_fails_every_gpu() -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    gpus = open_nvml(nvml)
    assert gpus is not None
    gpus.sample([])
    nvml.faults["nvmlDeviceGetCount"] = pynvml.NVML_ERROR_UNKNOWN
    assert [(each.uuid, each.failure) for each in gpus.sample([])] == [
        ("GPU-a", "Unknown Error"),
        ("GPU-b", "Unknown Error"),
    ]


def test_what_a_gpu_does_not_have_is_left_open() -> None:
    names = ("UtilizationRates", "PowerUsage", "Temperature", "ComputeRunningProcesses")
    faults = {f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in names}
    [reading] = opened(FakeGpu("GPU-a", faults=faults)).sample([])
    assert reading.failure == ""
    assert (reading.utilization_fraction, reading.power_watts, reading.temperature_celsius) == (None, None, None)


def test_units_are_those_of_the_contract() -> None:
    [reading] = opened(FakeGpu("GPU-a", utilization=42)).sample([])
    assert (reading.utilization_fraction, reading.power_watts, reading.temperature_celsius) == (0.42, 71.5, 33)
